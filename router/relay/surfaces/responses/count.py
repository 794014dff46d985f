"""POST /v1/responses/input_tokens: how many tokens a request has, as the engine counts them."""

from collections.abc import Coroutine
from typing import Any

import msgspec

from ....http.messages import Head
from ...stream.usage import tokens_from
from ..translation import TranslationError
from .asked import Asked, read
from .chat import chat_body
from .errors import renamed_answer
from .history import History
from .items import references
from .kept import KeptResponses


class CountTranslation:
    """An answer of one token, whose prompt the engine counts. Implements `Translation`."""

    def __init__(self, asked: Asked, history: History) -> None:
        shortest = msgspec.structs.replace(asked, max_output_tokens=1, stream=None, top_logprobs=None, include=None)
        self.body = chat_body(shortest, [*history.before, *history.items])

    def whole(self, answer: dict[str, Any]) -> dict[str, Any]:
        """The count. Raises TranslationError where the engine does not tell it."""
        tokens = tokens_from(answer.get("usage"))
        if tokens is None or not tokens.prompt:
            raise TranslationError("it has no usage.prompt_tokens")
        return {"object": "response.input_tokens", "input_tokens": tokens.prompt}

    def events(self, data: bytes) -> bytes:
        """Nothing: no stream is asked for."""
        return b""

    def end(self) -> bytes:
        """Nothing."""
        return b""


class InputTokens:
    """POST /v1/responses/input_tokens. Implements `Surface`.

    Args:
        kept: where responses are kept.
    """

    def __init__(self, kept: KeptResponses) -> None:
        self._kept = kept

    def translate(self, head: Head, body: bytes) -> CountTranslation | Coroutine[Any, Any, CountTranslation]:
        """What stands for a request; a coroutine where kept responses are to be read. Both raise TranslationError."""
        asked = read(body)
        if asked.previous_response_id or references(asked.items):
            return self._with_history(head, asked)
        return CountTranslation(asked, History([], asked.items))

    def error(self, status: int, answer: dict[str, Any], request_id: str) -> dict[str, Any]:
        """An error answer with the names of this API."""
        return renamed_answer(answer)

    async def _with_history(self, head: Head, asked: Asked) -> CountTranslation:
        return CountTranslation(asked, await self._kept.history(head.tenant.name, asked))
