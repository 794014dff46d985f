"""A client that does not read its answer makes its own requests wait, in bounded memory; nobody else waits for it."""

import asyncio
import threading
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from slurminfer.core.errors import EngineError
from slurminfer.nodes.native.engine import outputs as outputs_module
from slurminfer.nodes.native.engine.outputs import Outputs
from slurminfer.nodes.native.engine.request import FinishReason, Output, Request, Sample, SamplingParams
from slurminfer.nodes.native.engine.scheduling.waiting import WaitingQueue
from slurminfer.nodes.native.engine.thread import EngineThread
from slurminfer.nodes.native.model.step import Chunk

from ....support.fake_model import FakeModel, alone, make_core, make_request, run

PROMPT = [0, 1, 2, 1]


def _request(id: str = "a", **params: Any) -> Request:
    return Request(id, [0], SamplingParams(max_tokens=10**6, **params))


def _output(request: Request, finish: FinishReason | None = None) -> Output:
    return Output(request, Sample(0), finish)


def _buffer(*requests: Request, at_once: bool = True) -> tuple[Outputs, list[tuple[list[str], bool]]]:
    told: list[tuple[list[str], bool]] = []
    return Outputs(requests, lambda ids, paused: told.append((list(ids), paused)), at_once=at_once), told


def test_a_full_buffer_pauses_what_goes_on_and_a_half_empty_one_resumes_it(monkeypatch):
    monkeypatch.setattr(outputs_module, "_MOST_UNITS", 10)

    async def read() -> None:
        ended, going = _request("ended"), _request("going")
        buffer, told = _buffer(ended, going)
        buffer.put(_output(ended, FinishReason.STOP))
        for _ in range(9):
            buffer.put(_output(going))
        assert told == []
        for _ in range(3):
            buffer.put(_output(going))
        assert told == [(["going"], True)]
        for _ in range(8):
            await buffer.get()
        assert told == [(["going"], True), (["going"], False)]

    asyncio.run(read())


def test_alternatives_count_and_a_buffer_holds_some_steps_of_all_choices(monkeypatch):
    monkeypatch.setattr(outputs_module, "_MOST_UNITS", 10)
    requests = [_request(str(index), logprobs=4) for index in range(3)]
    buffer, told = _buffer(*requests)
    for step in range(4):
        assert told == [], step
        for request in requests:
            buffer.put(_output(request))
    buffer.put(_output(requests[0]))
    assert told == [(["0", "1", "2"], True)]


def test_who_reads_an_answer_whole_is_woken_at_its_end_or_when_the_buffer_fills(monkeypatch):
    monkeypatch.setattr(outputs_module, "_MOST_UNITS", 20)

    async def read() -> None:
        request = _request()
        buffer, told = _buffer(request, at_once=False)
        reading = asyncio.ensure_future(buffer.get())
        for step in range(9):
            buffer.put(_output(request), at=float(step))
        await asyncio.sleep(0)
        assert not reading.done()
        buffer.put(_output(request), at=9.0)
        assert [(await get)[1] for get in (reading, *[buffer.get() for _ in range(9)])] == list(range(10))
        reading = asyncio.ensure_future(buffer.get())
        buffer.put(_output(request), at=10.0)
        buffer.put(_output(request, FinishReason.LENGTH), at=11.0)
        assert (await reading)[1] == 10.0 and (await buffer.get())[0].finish is FinishReason.LENGTH
        assert told == []

    asyncio.run(read())


def test_an_engine_that_ends_wakes_who_reads_an_answer_whole():
    async def read() -> None:
        request = _request()
        buffer, _ = _buffer(request, at_once=False)
        buffer.put(_output(request))
        buffer.fail(EngineError("the engine has failed"))
        await buffer.get()
        with pytest.raises(EngineError, match="has failed"):
            await buffer.get()

    asyncio.run(read())


@pytest.mark.parametrize("depth", [1, 2])
def test_a_paused_request_holds_no_blocks_and_goes_on_where_it_was(depth):
    core = make_core(FakeModel(40, 2, depth=depth))
    core.submit([make_request("slow", PROMPT, 30, end=None), make_request("quick", [1], 30, end=None)])
    tokens: dict[str, list[int]] = {"slow": [], "quick": []}

    def step() -> None:
        for output in core.step():
            tokens[output.request.id].append(output.token)

    for _ in range(4):
        step()
    core.pause(["slow"])
    while core.busy:
        step()
    stats = core.stats()
    assert (stats.paused_requests, stats.running_requests, stats.kv_blocks_used) == (1, 0, 0)
    assert tokens["quick"] == alone([1], 30, end=None)
    assert 0 < len(tokens["slow"]) < 30
    core.resume(["slow"])
    tokens["slow"] += run(core)["slow"]
    assert tokens["slow"] == alone(PROMPT, 30, end=None)


def test_paused_requests_leave_room_for_others_and_can_be_aborted():
    core = make_core(FakeModel(40, 2), running=2)
    core.submit([make_request(id, PROMPT, 40, end=None) for id in ("s1", "s2", "waiting")])
    core.step()
    core.pause(["s1", "s2", "waiting"])
    core.submit([make_request("other", [2], 3, end=None)])
    assert list(run(core)) == ["other"]
    assert core.stats().paused_requests == 3
    core.abort_all(["s1", "waiting", "s2"])
    core.resume(["s1", "s2"])
    assert not core.busy
    assert core.stats().paused_requests == 0


@settings(max_examples=100)
@given(
    events=st.lists(st.none() | st.tuples(st.booleans(), st.integers(0, 5)), max_size=60),
    requests=st.lists(st.tuples(st.lists(st.integers(0, 2), min_size=1, max_size=9), st.integers(1, 9)),
                      min_size=1, max_size=6),
    depth=st.integers(1, 3),
)  # fmt: skip
def test_pausing_at_any_time_changes_no_tokens(events, requests, depth):
    core = make_core(FakeModel(12, 2, depth=depth))
    core.submit([make_request(str(index), *request) for index, request in enumerate(requests)])
    tokens: dict[str, list[int]] = {}

    def step() -> None:
        for output in core.step():
            tokens.setdefault(output.request.id, []).append(output.token)

    for event in events:
        if event is None:
            step()
        else:
            (core.pause if event[0] else core.resume)([str(event[1])])
    core.resume(map(str, range(6)))
    while core.busy:
        step()
    assert tokens == {str(index): alone(*request) for index, request in enumerate(requests)}
    assert core.stats().kv_blocks_used == 0


def test_a_client_that_does_not_read_bounds_what_the_engine_keeps(monkeypatch):
    monkeypatch.setattr(outputs_module, "_MOST_UNITS", 20)
    model, told = FakeModel(400, 2), threading.Event()
    forward = model.forward

    def wait_for_the_loop(chunks: Sequence[Chunk]) -> torch.Tensor:
        """However late the loop is, the engine is told to pause before the request is over."""
        if len(model.steps) > 250:
            told.wait(60)
        return forward(chunks)

    monkeypatch.setattr(model, "forward", wait_for_the_loop)

    async def work() -> None:
        engine = EngineThread()
        engine.start(lambda: make_core(model))
        await engine.ready.wait()
        slow = engine.submit([make_request("slow", PROMPT, 300, end=None)])
        await _until(lambda: slow._paused)
        told.set()
        await _until(lambda: engine.stats.paused_requests == 1)
        kept = slow._queue.qsize()
        quick = engine.submit([make_request("quick", [1], 10, end=None)])
        assert [(await quick.get())[0].token for _ in range(10)] == alone([1], 10, end=None)
        assert slow._queue.qsize() == kept < 300
        assert [(await slow.get())[0].token for _ in range(300)] == alone(PROMPT, 300, end=None)
        await engine.stop(5)

    asyncio.run(work())


async def _until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0)


class CountingHeap:
    """Counts comparisons of ranks."""

    compared = 0

    def __init__(self, rank: int) -> None:
        self.rank = rank

    def __lt__(self, other: "CountingHeap") -> bool:
        CountingHeap.compared += 1
        return self.rank < other.rank


def test_thousands_of_waiting_requests_are_added_and_removed_with_few_comparisons():
    queue, count = WaitingQueue(lambda request: CountingHeap(-int(request.id) % 977)), 20_000  # type: ignore[arg-type, return-value]
    requests = [_request(str(index)) for index in range(count)]
    CountingHeap.compared = 0
    for request in requests:
        queue.push(request)
    for request in requests[: count - 100]:
        assert queue.remove(request.id) is request
    assert CountingHeap.compared < 10 * count  # a sorted list would take millions
    assert len(queue) == 100
    assert len(queue._ranked._entries) < 300
    ranks = []
    while (first := queue.first()) is not None:
        queue.remove(first.id)
        ranks.append(first.rank.rank)  # type: ignore[attr-defined]
    assert ranks == sorted(ranks)
    assert len(ranks) == 100


def test_seeds_of_any_size_and_sign_are_different_seeds():
    seeds = [0, 1, -1, 2, -2, 2**63, -(2**63), 2**63 - 1, 10**30]
    draws = {_request(seed=seed).uniform() for seed in seeds}
    assert len(draws) == len(seeds)
    request = _request(seed=7)
    assert request.uniform() == request.uniform()
    before = request.uniform()
    request.extend(0)
    assert request.uniform() != before


def test_requests_share_a_prompt_until_they_generate():
    prompt = [0, 1]
    one, other = Request("1", prompt, _request().params), Request("2", prompt, _request().params)
    one.extend(2)
    assert (one.tokens, other.tokens, prompt) == ([0, 1, 2], [0, 1], [0, 1])
    assert torch.tensor(other.tokens).shape == (2,)
