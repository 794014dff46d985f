"""How many requests are in flight, against endpoints that are simulated in a clock of their own."""

import heapq
import itertools
from collections import deque
from dataclasses import dataclass

import pytest

from slurminfer.jobs.batch.driver.concurrency import LEAST, MOST_UNKNOWN, START, Concurrency
from slurminfer.jobs.batch.driver.load import Load


@dataclass
class Engine:
    """Computes `batch` requests at once, each for `seconds`, and refuses what finds more than `room` waiting."""

    batch: int
    seconds: float = 1.0
    room: int = 10**9
    tokens: int = 100
    capacity: int | None = None  # as its router tells it


class Simulation:
    """A driver that always has rows, and an engine, in one clock."""

    def __init__(self, engine: Engine, *, tells: bool, fixed: int | None = None) -> None:
        self.engine, self.tells, self.now = engine, tells, 0.0
        self.concurrency = Concurrency(lambda: self.now, fixed)
        self.running: list[tuple[float, int, float]] = []  # ends at, number, sent at
        self.waiting: deque[float] = deque()  # sent at
        self.numbers = itertools.count()
        self.sizes: list[int] = []
        self.done = 0

    @property
    def in_flight(self) -> int:
        return len(self.running) + len(self.waiting)

    def run(self, seconds: float) -> "Simulation":
        until, look = self.now + seconds, self.now
        while self.now < until:
            self._send()
            if self.tells and self.now >= look:
                self._look()
                look = self.now + 2.0
                self._send()
            self.now = min([end for end, *_ in self.running[:1]] + ([look] if self.tells else []) + [until])
            self._finish()
        return self

    def _send(self) -> None:
        for _ in range(self.concurrency.size - self.in_flight):
            if len(self.waiting) >= self.engine.room:
                self.concurrency.refused(self.now)
                self.now += 1e-6
                break
            self.waiting.append(self.now)
            self._start()

    def _start(self) -> None:
        while self.waiting and len(self.running) < self.engine.batch:
            number = next(self.numbers)
            end = self.now + self.engine.seconds * (0.9 + 0.2 * (number * 7919 % 101) / 101)
            heapq.heappush(self.running, (end, number, self.waiting.popleft()))

    def _finish(self) -> None:
        while self.running and self.running[0][0] <= self.now:
            _, _, sent_at = heapq.heappop(self.running)
            self._start()
            self.done += 1
            self.concurrency.answered(sent_at, self.engine.tokens, self.in_flight + 1)
            self.sizes.append(self.concurrency.size)

    def _look(self) -> None:
        load = Load(running=len(self.running), waiting=len(self.waiting), capacity=self.engine.capacity)
        self.concurrency.see(load, self.in_flight)


@pytest.mark.parametrize("batch", [8, 48, 300])
@pytest.mark.parametrize("seconds", [0.5, 3.0])
def test_an_engine_that_tells_its_queue_is_full_and_has_a_short_queue(batch, seconds):
    engine = Engine(batch=batch, seconds=seconds)
    simulation = Simulation(engine, tells=True).run(60)
    before = simulation.done
    simulation.run(30)
    assert simulation.done - before > 0.95 * 30 / seconds * batch, "its batch is full"
    assert min(simulation.sizes[-100:]) >= batch
    assert max(simulation.sizes[-100:]) <= 1.6 * batch + 2 * LEAST


@pytest.mark.parametrize("batch", [16, 200])
def test_an_engine_that_tells_nothing_is_measured(batch):
    simulation = Simulation(Engine(batch=batch), tells=False).run(200)
    before = simulation.done
    simulation.run(100)
    assert simulation.done - before > 0.9 * 100 * batch
    assert simulation.concurrency.size <= 2.3 * batch + START


def test_more_than_the_most_is_not_tried_where_nothing_is_told():
    assert Simulation(Engine(batch=10_000), tells=False).run(25).concurrency.size == MOST_UNKNOWN


def test_refusals_halve_once_for_all_requests_that_were_sent_before():
    now = [0.0]
    concurrency = Concurrency(lambda: now[0])
    now[0] = 5.0
    for _ in range(30):
        concurrency.refused(4.0)
    assert concurrency.size == START // 2
    concurrency.refused(5.5)
    assert concurrency.size == START // 4
    for sent_at in range(6, 20):
        now[0] = float(sent_at)
        concurrency.refused(float(sent_at))
    assert concurrency.size == LEAST


@pytest.mark.parametrize("tells", [True, False])
def test_an_engine_that_refuses_a_long_queue_does_not_make_it_collapse(tells):
    simulation = Simulation(Engine(batch=64, room=40), tells=tells).run(200)
    before = simulation.done
    simulation.run(200)
    assert simulation.done - before > 0.8 * 200 * 64


def test_workers_that_come_and_go_are_followed_at_once():
    concurrency = Concurrency(lambda: 0.0)
    sizes = []
    for capacity in (8, 16, 4, 0):
        concurrency.see(Load(capacity=capacity, running=capacity), in_flight=capacity)
        sizes.append(concurrency.size)
    assert sizes == [10, 20, 5, LEAST]
    concurrency.see(Load(capacity=8, may_be_added=12), in_flight=4)
    assert concurrency.size == LEAST + 25 - LEAST, "(8 + 12) x 1.25"


def test_a_capacity_that_is_too_large_is_corrected_by_the_queue():
    """An engine may have room for fewer requests than its flags say: its KV cache is full before."""
    simulation = Simulation(Engine(batch=40, capacity=256, seconds=5.0), tells=True)
    simulation.run(200)
    assert 40 <= simulation.concurrency.size <= 72
    assert min(simulation.sizes[-200:]) >= 40


def test_a_fixed_number_stays():
    simulation = Simulation(Engine(batch=8, room=2), tells=True, fixed=7)
    simulation.run(20)
    assert set(simulation.sizes) == {7}
