"""An exception that belongs to one request ends that request; the others get the tokens that they would have got."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch

from slurminfer.core.errors import EngineError
from slurminfer.nodes.native.engine import begun as begun_module
from slurminfer.nodes.native.engine import core as core_module
from slurminfer.nodes.native.engine.core import EngineCore
from slurminfer.nodes.native.engine.failures import RequestFailedError, StepError
from slurminfer.nodes.native.engine.request import Request, SamplingParams
from slurminfer.nodes.native.engine.thread import EngineThread
from slurminfer.nodes.native.options import Speculative

from ....support.fake_model import VOCAB, FakeModel, alone, make_core, make_request, run

GOOD = {"a": ([0, 1, 2], 9), "b": ([1, 1], 5)}


class Flawed(Request):
    """Raises where it is told to, each time."""

    def __init__(self, where: str) -> None:
        super().__init__("bad", [2, 2, 0], SamplingParams(max_tokens=9, temperature=0))
        self.where = where

    def extend(self, token: int) -> Any:
        if self.where == "extend":
            raise ValueError("flawed")
        return super().extend(token)


def _hurt(monkeypatch: pytest.MonkeyPatch, core: EngineCore, where: str) -> None:
    """Let a method raise for the request `bad`."""
    owner, name, found = {
        "add": (core._scheduler, "add", lambda args: args[0]),
        "allocate": (core._blocks, "allocate", lambda args: args[0]),
        "commit": (core._blocks, "commit", lambda args: args[0]),
        "chunk": (begun_module, "Chunk", lambda args: None),
        "sample": (core_module, "sample", lambda args: next((r for r in args[1] if r.id == "bad"), None)),
        "guess": (
            core._speculation and core._speculation._proposer,
            "propose",
            lambda args: next((r for r, _ in args[0] if r.id == "bad"), None),
        ),
    }[where]
    original = getattr(owner, name)

    def hurt(*args: Any, **more: Any) -> Any:
        request = found(args)
        if (request is not None and request.id == "bad") or (where == "chunk" and list(args[0])[:2] == [2, 2]):
            raise ValueError("flawed")
        return original(*args, **more)

    monkeypatch.setattr(owner, name, hurt)


@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize("where", ["add", "allocate", "commit", "chunk", "sample", "extend", "guess"])
def test_only_the_request_that_raises_ends(monkeypatch, capsys, where, depth):
    method: Speculative = "ngram" if where == "guess" else "none"
    core = make_core(FakeModel(100, 2, depth=depth), method=method)
    if where != "extend":
        _hurt(monkeypatch, core, where)
    core.submit([make_request("a", *GOOD["a"]), Flawed(where), make_request("b", *GOOD["b"])])
    tokens = run(core)
    assert {id: tokens[id] for id in GOOD} == {id: alone(*request) for id, request in GOOD.items()}
    [failure] = core.take_failures()
    assert (failure.request.id, str(failure.error)) == ("bad", "flawed")
    stats = core.stats()
    assert (stats.failed_requests, stats.kv_blocks_used, stats.running_requests) == (1, 0, 0)
    assert not core.take_failures()
    assert capsys.readouterr().err.count("ValueError: flawed") == 1


def test_the_same_failure_fills_no_log(capsys):
    core = make_core(FakeModel(100, 2))
    core.submit([Flawed("extend") for _ in range(3)])
    for index in range(3):
        core.submit([Flawed("extend")])
        run(core)
        assert core.take_failures()[-1].request.id == "bad", index
    assert capsys.readouterr().err.count("ValueError: flawed") == 1


@pytest.mark.parametrize("prompt", [[], [-1], [0, VOCAB], [2**70]])
def test_a_prompt_that_is_none_fails_before_the_model_sees_it(prompt):
    core = make_core(FakeModel(100, 2))
    core.submit([make_request("bad", prompt, 2), make_request("a", *GOOD["a"])])
    assert run(core) == {"a": alone(*GOOD["a"])}
    assert [failure.request.id for failure in core.take_failures()] == ["bad"]


def test_a_draft_model_that_cannot_compute_a_step_ends_the_engine(monkeypatch):
    core = make_core(FakeModel(100, 2), method="draft")
    assert core._speculation is not None

    def broken(_: Sequence[Any]) -> torch.Tensor:
        raise RuntimeError("no memory")

    monkeypatch.setattr(core._speculation._proposer._model, "forward", broken)  # type: ignore[attr-defined]
    core.submit([make_request("a", *GOOD["a"])])
    with pytest.raises(StepError, match="the draft model cannot compute a step"):
        run(core)


def test_a_batch_that_fails_is_drawn_again_row_by_row_with_the_same_random_numbers():
    """One parameter that no tensor can hold, between requests that are sampled."""

    def requests() -> list[Request]:
        params = [SamplingParams(max_tokens=20, temperature=5, seed=seed) for seed in (1, 2)]
        return [Request(f"good{seed}", [seed, 0], one) for seed, one in enumerate(params)]

    bad = Request("bad", [1, 2], SamplingParams(max_tokens=20, temperature=10**400))
    together, without = make_core(FakeModel(100, 2)), make_core(FakeModel(100, 2))
    first, second = requests()
    together.submit([first, bad, second])
    without.submit(requests())
    assert run(together) == run(without)
    assert [failure.request.id for failure in together.take_failures()] == ["bad"]


# The thread and the clients.


def _with_engine(work: Callable[[EngineThread], Any], model: FakeModel | None = None) -> Any:
    async def run_it() -> Any:
        engine = EngineThread()
        engine.start(lambda: make_core(model or FakeModel(100, 2)))
        await engine.ready.wait()
        try:
            return await work(engine)
        finally:
            await engine.stop(5)

    return asyncio.run(run_it())


async def _read(engine: EngineThread, requests: Sequence[Request]) -> dict[str, list[int]]:
    outputs, tokens = engine.submit(requests), {request.id: list[int]() for request in requests}
    left = len(requests)
    while left:
        output, _ = await outputs.get()
        tokens[output.request.id].append(output.token)
        left -= output.finish is not None
    return tokens


def test_a_client_hears_of_its_failed_request_and_others_go_on():
    async def work(engine: EngineThread) -> None:
        good = asyncio.create_task(_read(engine, [make_request("a", *GOOD["a"])]))
        with pytest.raises(RequestFailedError, match="the engine failed on this request: ValueError"):
            await _read(engine, [make_request("c", [0], 50, end=None), Flawed("extend")])
        engine.abort(["c"])
        assert (await good) == {"a": alone(*GOOD["a"])}
        assert (await _read(engine, [make_request("b", *GOOD["b"])])) == {"b": alone(*GOOD["b"])}
        assert not engine.ended.done()

    _with_engine(work)


def test_what_breaks_the_model_ends_all_requests(monkeypatch):
    model = FakeModel(100, 2)

    def broken(_: Sequence[Any]) -> torch.Tensor:
        raise RuntimeError("the model broke")

    monkeypatch.setattr(model, "forward", broken)

    async def work(engine: EngineThread) -> None:
        with pytest.raises(EngineError, match="the engine has failed"):
            await _read(engine, [make_request("a", *GOOD["a"])])
        assert "the model broke" in str(engine.ended.exception())

    _with_engine(work, model)
