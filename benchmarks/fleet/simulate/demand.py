"""Requests of one pool that wait for its workers, as a queue of counts."""

import math
from collections import Counter, deque
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from slurminfer.jobs.fleet.rules.observed import Demand

PATIENCE_S = 600.0  # queue_timeout
_AHEAD = 1024  # requests of a batch that wait for workers which are not there


@dataclass(slots=True)
class Requests:
    """Requests of one pool.

    Args:
        coming: how many come in each tick.
        per_s: how many come a second, on average.
        takes_s: for so long a worker computes one.
        capacity: so many a worker computes at once.
    """

    coming: npt.NDArray[np.int64]
    per_s: npt.NDArray[np.float64]
    takes_s: float
    capacity: int
    waits: Counter[float] = field(default_factory=Counter)  # seconds -> requests
    refused: int = 0
    cut: int = 0  # in flight at a worker that was killed at the end of its walltime
    _waiting: deque[list[float]] = field(default_factory=deque)  # when they came, how many
    _backlog: int = 0
    _in_flight: int = 0
    _last_at: float = 0.0

    def tick(self, number: int, now: float, tick_s: float, ready: int) -> None:
        """Let requests of tick `number` come, and so many workers serve what they can."""
        came = int(self.coming[number])
        if came:
            self._waiting.append([now, came])
            self._backlog += came
            self._last_at = now
        room = int(ready * self.capacity * tick_s / self.takes_s)
        busy = min(self._backlog, room)
        while room and self._waiting:
            first = self._waiting[0]
            served = min(room, int(first[1]))
            self.waits[now - first[0]] += served
            room, self._backlog = room - served, self._backlog - served
            first[1] -= served
            if not first[1]:
                self._waiting.popleft()
        self._in_flight = math.ceil(busy * self.takes_s / tick_s)
        while self._waiting and now - self._waiting[0][0] >= PATIENCE_S:
            gone = int(self._waiting.popleft()[1])
            self.refused, self._backlog = self.refused + gone, self._backlog - gone
            self.waits[PATIENCE_S] += gone

    def demand(self, now: float) -> Demand:
        """What the router tells of it."""
        return Demand(
            in_flight=self._in_flight,
            waiting=self._backlog,
            waited_s=now - self._waiting[0][0] if self._waiting else 0.0,
            idle_s=0.0 if self._in_flight or self._backlog else now - self._last_at,
        )

    def needed(self, number: int) -> int:
        """Workers that the load of tick `number` needs."""
        return math.ceil(float(self.per_s[number]) * self.takes_s / self.capacity)

    def lose(self, workers: int) -> None:
        """Break off what is in flight at one of so many workers."""
        self.cut += round(self._in_flight / max(1, workers))

    def wait_s(self, part: float) -> float:
        """The wait that this part of the requests does not exceed, in seconds."""
        total, seen = sum(self.waits.values()), 0
        for wait, count in sorted(self.waits.items()):
            seen += count
            if seen >= part * total:
                return wait
        return 0.0


@dataclass(slots=True)
class Batches(Requests):
    """Lines of batches: they wait for as long as it takes. The router sees of them what a batch has in flight."""

    done: int = 0

    def tick(self, number: int, now: float, tick_s: float, ready: int) -> None:
        """Let batches come, and so many workers compute what they can."""
        self._backlog += int(self.coming[number])
        self._last_at = now if self._backlog else self._last_at
        served = min(self._backlog, int(ready * self.capacity * tick_s / self.takes_s))
        self._backlog, self.done = self._backlog - served, self.done + served
        self._in_flight = min(self._backlog, ready * self.capacity)

    def demand(self, now: float) -> Demand:
        """What the router tells of it."""
        waiting = min(_AHEAD, self._backlog - self._in_flight)
        idle_s = 0.0 if self._backlog else now - self._last_at
        return Demand(in_flight=self._in_flight, waiting=waiting, waited_s=60.0 if waiting else 0.0, idle_s=idle_s)

    def needed(self, number: int) -> int:
        """Nobody waits for a batch."""
        return 0
