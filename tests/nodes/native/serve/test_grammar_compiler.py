"""Where constraints are compiled: beside the event loop, and none waits for a big one."""

import asyncio
import threading

import pytest

from slurminfer.nodes.native.api.grammars import GrammarCompiler, _is_big
from slurminfer.nodes.native.api.requests.structured import Structure
from slurminfer.nodes.native.grammar.compiler import Grammars
from slurminfer.nodes.native.grammar.constraint import Choices, Constraint, JsonSchema, Regex, Row
from slurminfer.nodes.native.grammar.threads import STACK_BYTES
from slurminfer.nodes.native.tokenizer import Tokenizer

from ....support.chat_model import write_tokenizer

BIG = Choices(["x" * 20_000])


@pytest.fixture
def compiler(tmp_path):
    write_tokenizer(tmp_path)
    compiler = GrammarCompiler(Tokenizer(tmp_path))
    yield compiler
    compiler.close()


def test_small_constraints_pass_big_ones(compiler, monkeypatch):
    asyncio.run(_small_passes_big(compiler, monkeypatch))


async def _small_passes_big(compiler, monkeypatch):
    go_on = threading.Event()
    usual = Grammars.compile

    def waits(self: Grammars, constraint: Constraint, vocab_size: int):
        if constraint == BIG:
            go_on.wait()
        return usual(self, constraint, vocab_size)

    monkeypatch.setattr(Grammars, "compile", waits)
    big = [asyncio.ensure_future(compiler.compile(Structure("guided_choice", BIG), 320)) for _ in range(3)]
    try:
        await compiler.compile(Structure("guided_regex", Regex("a")), 320)
        assert not any(each.done() for each in big)
    finally:
        go_on.set()
    assert await asyncio.gather(*big)


def test_what_is_big_is_known_without_writing_it_out():
    schema = {"$defs": {"a": {"enum": ["x" * 1000] * 100}}}
    shared = [JsonSchema({"title": f"{number}", **schema}) for number in range(20_000)]  # 2 GB, were it written out
    big: list[Constraint] = [
        BIG, Row(shared), JsonSchema({"enum": list(range(5000))}), JsonSchema({"x" * 20_000: 1})
    ]  # fmt: skip
    small: list[Constraint] = [Regex("a"), Choices(["x" * 1000]), JsonSchema({"enum": list(range(1000))})]
    assert all(map(_is_big, big)) and not any(map(_is_big, small))


def test_they_are_compiled_with_a_large_stack(compiler, monkeypatch):
    sizes = []
    start = threading.Thread.start

    def started(thread: threading.Thread) -> None:
        sizes.append(threading.stack_size())
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", started)
    for constraint in (Regex("a"), BIG):
        asyncio.run(compiler.compile(Structure("x", constraint), 320))
    assert sizes == [STACK_BYTES, STACK_BYTES]
