"""Rows that take an engine down, and those beside them, in virtual time."""

import asyncio
import random
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from slurminfer.jobs.batch.driver import sender
from slurminfer.jobs.batch.driver.http.reply import Reply, UnreachableError
from slurminfer.jobs.batch.driver.sender import Sender
from slurminfer.jobs.batch.driver.suspects import Crashes
from slurminfer.jobs.batch.driver.work import WorkMaker
from slurminfer.jobs.batch.inputs.request import BatchRequest
from slurminfer.jobs.batch.parameters import Parameters


class VirtualLoop(asyncio.SelectorEventLoop):
    """Time jumps to the next thing that is due."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def time(self) -> float:
        return self.now

    def _run_once(self) -> None:
        if not self._ready and self._scheduled:  # type: ignore[attr-defined]
            self.now = max(self.now, self._scheduled[0].when())  # type: ignore[attr-defined]
        super()._run_once()  # type: ignore[misc]


class Engines:
    """One address, and engines behind it, each of which dies of a poison after a second, and is back after a while."""

    url = "http://engines"

    def __init__(self, *, engines: int, answer_s: float, restart_s: float) -> None:
        self.answer_s, self.restart_s = answer_s, restart_s
        self.back_at = [0.0] * engines
        self.flying: list[set[asyncio.Future[None]]] = [set() for _ in range(engines)]
        self.deaths = self.turn = 0

    async def relocate(self) -> None:
        """It stays where it is."""

    async def post(self, path: str, body: bytes) -> Reply:
        loop = asyncio.get_running_loop()
        there = [one for one, at in enumerate(self.back_at) if at <= loop.time()]
        if not there:
            raise UnreachableError("connection refused")
        self.turn += 1
        engine, is_poison = there[self.turn % len(there)], b"poison" in body
        future = loop.create_future()
        self.flying[engine].add(future)
        loop.call_later(1.0 if is_poison else self.answer_s, self._end, engine, future, is_poison)
        await future
        choices = [{"index": 0, "text": "yes", "finish_reason": "stop"}]
        return Reply(200, [], msgspec.json.encode({"choices": choices, "usage": None}))

    def _end(self, engine: int, future: "asyncio.Future[None]", is_poison: bool) -> None:
        if future not in self.flying[engine]:
            return
        self.flying[engine].discard(future)
        if not is_poison:
            future.set_result(None)
            return
        self.deaths += 1
        self.back_at[engine] = asyncio.get_running_loop().time() + self.restart_s
        for lost in [future, *self.flying[engine]]:
            lost.set_exception(UnreachableError("its connection ended", broken_off=True))
        self.flying[engine].clear()


async def settle(engines: Engines, prompts: list[str], at_once: int):
    """Why rows have no answer, by their prompts."""
    concurrency: Any = SimpleNamespace(answered=lambda *_: None, refused=lambda *_: None)
    endpoint: Any = engines
    sending = Sender(
        endpoint, concurrency, lambda: 0, lambda: None, samples=1, patience_s=1e9, waits_for_holes=False
    )  # fmt: skip
    make, slots = WorkMaker(Parameters(model="m")), asyncio.Semaphore(at_once)
    shard: Any = None

    async def one(index: int, prompt: str):
        request = BatchRequest(0, index, index + 1, str(index), "/v1/completions", {"prompt": prompt})
        async with slots:
            return await sending.settle(make.make(shard, request))

    records = await asyncio.gather(*(one(index, prompt) for index, prompt in enumerate(prompts)))
    return {prompt: record.error for prompt, record in zip(prompts, records, strict=True) if record.error is not None}


def run(engines: Engines, prompts: list[str], at_once: int = 64):
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(settle(engines, prompts, at_once))


@pytest.fixture(autouse=True)
def same_jitter(monkeypatch):
    monkeypatch.setattr(sender, "random", random.Random(1))


@pytest.mark.parametrize("answer_s", [0.5, 10.0, 120.0])
@pytest.mark.parametrize("poisons", [1, 3])
@pytest.mark.parametrize(("count", "restart_s"), [(1, 0.0), (1, 60.0), (2, 20.0)])
def test_rows_beside_those_that_take_the_engine_down_are_answered(answer_s, poisons, count, restart_s):
    prompts = [f"poison {n}" if n % 70 == 9 and n < 70 * poisons else f"row {n}" for n in range(200)]
    engines = Engines(engines=count, answer_s=answer_s, restart_s=restart_s)
    errors = run(engines, prompts)
    assert list(errors) == [f"poison {70 * n + 9}" for n in range(poisons)]
    assert all(why.startswith("failed ") and why.endswith("times: its connection ended") for why in errors.values())
    assert 8 <= engines.deaths <= 12 * poisons


def test_of_hundreds_in_flight_none_is_given_up_for_what_it_failed_of_together_with_others():
    engines = Engines(engines=1, answer_s=300.0, restart_s=0.0)
    errors = run(engines, ["poison" if n == 99 else f"row {n}" for n in range(1000)], at_once=1000)
    assert list(errors) == ["poison"] and engines.deaths <= 2 + 10 + 3


def test_a_row_whose_connection_breaks_off_alone_is_given_up_without_the_others(monkeypatch):
    """As where a proxy lets no answer take longer than it likes."""
    engines = Engines(engines=1, answer_s=30.0, restart_s=0.0)
    monkeypatch.setattr(engines, "flying", [Alone()])
    errors = run(engines, [f"poison {n}" for n in range(10)] + [f"row {n}" for n in range(54)])
    assert list(errors) == [f"poison {n}" for n in range(10)]
    assert engines.deaths == 10 * 8, "none was tried apart"


class Alone(set):
    """Requests of which no other dies with one."""

    def __iter__(self):
        return iter(())

    def clear(self):
        pass


def test_connections_that_break_off_together_tell_the_death_of_the_endpoint():
    now = 0.0
    crashes = Crashes(lambda: now)
    flights = [crashes.sent() for _ in range(3)]
    now = 1.0
    first = crashes.broke_off(flights[0])
    assert crashes.broke_off(flights[1]) is first
    assert first.is_death, "two of three"
    crashes.ended(flights[0])
    crashes.ended(flights[1])
    now = 1.5
    flights += [crashes.sent() for _ in range(5)]
    now = 1.6
    assert not crashes.broke_off(flights[3]).is_death, "others go on"
