"""Grammars compiled for requests, beside the event loop."""

import asyncio
from dataclasses import fields, is_dataclass
from functools import cached_property
from itertools import islice
from typing import Any

from ..grammar.compiler import Grammars
from ..grammar.constraint import Constraint
from ..grammar.errors import ConstraintError, GrammarsFullError
from ..grammar.matcher import Grammar
from ..grammar.threads import DeepThreads
from ..tokenizer import Tokenizer
from .errors import ApiError
from .requests.structured import Structure

_SMALL_AT_ONCE = 2  # each takes some milliseconds
_BIG_BYTES = 1 << 14  # from which on they may take seconds
_SHORT = 4  # bytes that anything but a string counts
_MOST_BIG = 16  # that are being compiled or wait for that
_BUSY = "grammars_busy"


class GrammarCompiler:
    """Compiles what requests ask for. A big constraint waits for other big ones; small ones pass it.

    Nothing is loaded before the first one asks.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._small = DeepThreads(_SMALL_AT_ONCE, "grammar")
        self._big = DeepThreads(1, "grammar-big")
        self._num_big = 0

    async def compile(self, structure: Structure, vocab_size: int) -> Grammar:
        """Raises ApiError for a constraint that cannot be compiled, or not now."""
        try:
            if _is_big(structure.constraint):
                return await self._compile_big(structure, vocab_size)
            return await asyncio.wrap_future(self._small.submit(self._compile, structure, vocab_size))
        except ConstraintError as error:
            raise ApiError(400, f"{structure.param}: {error}", param=structure.param) from error
        except GrammarsFullError as error:
            raise ApiError(429, f"{structure.param}: {error}", param=structure.param, code=_BUSY) from error

    async def _compile_big(self, structure: Structure, vocab_size: int) -> Grammar:
        if self._num_big >= _MOST_BIG:
            message = f"{structure.param}: {self._num_big} large ones wait to be compiled; try again in a few seconds"
            raise ApiError(429, message, param=structure.param, code=_BUSY)
        self._num_big += 1
        try:
            return await asyncio.wrap_future(self._big.submit(self._compile, structure, vocab_size))
        finally:
            self._num_big -= 1

    def close(self) -> None:
        """End the threads, without waiting for them."""
        for threads in (self._small, self._big):
            threads.close()

    def _compile(self, structure: Structure, vocab_size: int) -> Grammar:
        return self._grammars.compile(structure.constraint, vocab_size)

    @cached_property
    def _grammars(self) -> Grammars:
        tokenizer = self._tokenizer
        return Grammars(tokenizer.json, tokenizer.end_ids, tokenizer.special_ids)


def _is_big(constraint: Constraint) -> bool:
    """Whether its texts are long, each counted as often as it is written. Looked at only until that is clear."""
    left, found = _BIG_BYTES, list[Any]([constraint])
    while found and left > 0:
        each = found.pop()
        if isinstance(each, dict):
            left -= sum(map(len, islice(each, left)))
            found += islice(each.values(), max(left, 0))
        elif isinstance(each, list | tuple):
            found += islice(each, left)
        elif is_dataclass(each):
            found += [getattr(each, field.name) for field in fields(each)]
        left -= len(each) if isinstance(each, str) else _SHORT
    return left <= 0
