"""Grammars compiled for requests, beside the event loop."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property

from ..grammar.compiler import Grammars
from ..grammar.errors import ConstraintError
from ..grammar.matcher import Grammar
from ..tokenizer import Tokenizer
from .errors import ApiError
from .requests.structured import Structure

_AT_ONCE = 2  # each takes some milliseconds, the largest that are taken about a second


class GrammarCompiler:
    """Compiles what requests ask for. Nothing is loaded before the first one asks."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._pool = ThreadPoolExecutor(_AT_ONCE, "grammar")

    async def compile(self, structure: Structure, vocab_size: int) -> Grammar:
        """Raises ApiError for a constraint that cannot be compiled."""
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._pool, self._compile, structure, vocab_size)
        except ConstraintError as error:
            raise ApiError(400, f"{structure.param}: {error}", param=structure.param) from error

    def close(self) -> None:
        """End the threads, without waiting for them."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _compile(self, structure: Structure, vocab_size: int) -> Grammar:
        return self._grammars.compile(structure.constraint, vocab_size)

    @cached_property
    def _grammars(self) -> Grammars:
        tokenizer = self._tokenizer
        return Grammars(tokenizer.json, tokenizer.end_ids, tokenizer.special_ids)
