"""Prompts to tokens: beside the event loop, and with a bound on the text that is worked on at once."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

from ....core.machine.memory import give_back_freed
from ..engine.request import Limits
from ..tokenizer import Tokenizer

_BIG_BYTES = 1 << 18
_SMALL_AT_ONCE = 4


class PromptEncoder:
    """Tokenizes for many clients. A big prompt waits for other big ones; small ones pass it."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._small = ThreadPoolExecutor(_SMALL_AT_ONCE, "tokenizer")
        self._big = ThreadPoolExecutor(1, "tokenizer-big")

    def most_bytes(self, limits: Limits) -> int:
        """The longest text, in bytes, that may fit into the context."""
        return limits.sequence_tokens * self._tokenizer.longest_token

    async def encode(self, text: str, limits: Limits, *, add_special_tokens: bool) -> list[int]:
        """Token ids of `text`. Raises RequestTooLongError, without tokenizing, if its bytes cannot fit the context."""
        size = len(text)
        if size <= self.most_bytes(limits):
            size = len(text.encode())
        limits.check_bytes(size, self._tokenizer.longest_token)
        big = size > _BIG_BYTES
        work = self._encode_big if big else self._encode
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._big if big else self._small, work, text, add_special_tokens)

    def close(self) -> None:
        """End the threads, without waiting for them."""
        for pool in (self._small, self._big):
            pool.shutdown(wait=False, cancel_futures=True)

    def _encode(self, text: str, add_special_tokens: bool) -> list[int]:
        return self._tokenizer.encode(text, add_special_tokens=add_special_tokens)

    def _encode_big(self, text: str, add_special_tokens: bool) -> list[int]:
        try:
            return self._encode(text, add_special_tokens)
        finally:
            give_back_freed()  # tokenizing takes some hundred bytes for each byte of text
