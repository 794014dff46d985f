"""The memory of all grammars together is bounded: those that nobody uses go first, then requests are turned away."""

import asyncio
import gc

import pytest

from slurminfer.nodes.native.api import grammars as api
from slurminfer.nodes.native.api.errors import ApiError
from slurminfer.nodes.native.api.grammars import GrammarCompiler
from slurminfer.nodes.native.api.requests.structured import Structure
from slurminfer.nodes.native.grammar.compiler import Grammars
from slurminfer.nodes.native.grammar.constraint import Choices, Regex
from slurminfer.nodes.native.grammar.errors import ConstraintError, GrammarsFullError
from slurminfer.nodes.native.grammar.memory import GrammarMemory


@pytest.fixture
def grammars(tokenizer):
    found = Grammars(tokenizer.json, tokenizer.end_ids, tokenizer.special_ids)
    found.memory = GrammarMemory(100_000)
    return found


def _big(number: int) -> Choices:
    return Choices([f"{number}" + "x" * 30_000])


def test_grammars_in_use_are_bounded_and_those_that_have_ended_make_room(grammars):
    held = [grammars.compile(_big(number), 320) for number in range(2)]
    with pytest.raises(GrammarsFullError) as full:
        grammars.compile(_big(2), 320)
    for part in ("60", "30", "at most 100000 together, 75000 where one has more than 16384"):
        assert part in str(full.value)
    small = grammars.compile(Regex("x"), 320)  # passes: the last quarter is for small ones
    held.pop()
    gc.collect()
    assert grammars.compile(_big(2), 320)
    assert small.matcher().fill()


def test_small_grammars_count_too_as_they_grow_while_text_is_generated(grammars):
    held = [grammars.compile(Regex(f"x{number}"), 320) for number in range(12)]
    with pytest.raises(GrammarsFullError):
        grammars.compile(Regex("y"), 320)
    assert grammars.compile(Regex("x3"), 320) is held[3]  # what others use takes nothing more


def test_grammars_that_are_only_kept_are_given_up(grammars):
    for number in range(12):
        grammars.compile(_big(number), 320)
    assert grammars.memory.used <= 75_000
    with pytest.raises(ConstraintError):
        grammars.compile(Regex("["), 320)
    grammars._kept.clear()
    gc.collect()
    assert grammars.memory.used == 0


def test_a_request_that_has_to_wait_gets_429_and_what_would_not_compile_gets_400(tokenizer):
    compiler = GrammarCompiler(tokenizer)
    compiler._grammars.memory = GrammarMemory(10_000)

    async def ask(constraint) -> object:
        return await compiler.compile(Structure("response_format", constraint), 320)

    async def work() -> None:
        held = await ask(Regex("a"))
        with pytest.raises(ApiError, match="response_format: the grammars of requests in flight") as busy:
            await ask(Regex("b"))
        assert (busy.value.status, busy.value.code) == (429, "grammars_busy")
        del held
        await _until_unused(compiler)
        await ask(Regex("b"))
        await _until_unused(compiler)
        with pytest.raises(ApiError) as wrong:
            await ask(Regex("["))
        assert wrong.value.status == 400

    try:
        asyncio.run(work())
    finally:
        compiler.close()


async def _until_unused(compiler: GrammarCompiler) -> None:
    """Threads and the event loop hold what they have handed over for a moment."""
    compiler._grammars._kept.clear()
    while compiler._grammars.memory.used:
        await asyncio.sleep(0)


def test_only_so_many_large_grammars_wait_to_be_compiled(tokenizer, monkeypatch):
    monkeypatch.setattr(api, "_MOST_BIG", 2)
    compiler = GrammarCompiler(tokenizer)

    async def work() -> None:
        asked = [asyncio.ensure_future(compiler.compile(Structure("tools", _big(number)), 320)) for number in range(3)]
        found = await asyncio.gather(*asked, return_exceptions=True)
        assert [getattr(each, "status", None) for each in found] == [None, None, 429]
        assert "tools: 2 large ones wait to be compiled" in str(found[2])
        assert await compiler.compile(Structure("tools", _big(3)), 320)

    try:
        asyncio.run(work())
    finally:
        compiler.close()
