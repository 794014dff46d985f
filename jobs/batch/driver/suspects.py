"""Which row takes the endpoint down: of those that were in flight together whenever it died.

An engine that dies breaks off all of its connections. Each row that was in flight may be the reason, and most are not.
So a connection that breaks off together with many others says little of its row. Rows to which that has happened twice
are tried apart: together at first, half as many each time that the endpoint dies under them, at last one by one. Other
rows go on meanwhile.
"""

import asyncio
import math
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from .retry import MAX_DEATHS, MIN_OWN_FAILURES

_PART_OF_DEATH = 0.25  # of all requests in flight: there may be several engines behind one address
_TOGETHER_S = 1.0  # connections that break off within this time have broken off together


class Flight:
    """One request on its way."""

    __slots__ = ("crash", "sent_at")

    def __init__(self, sent_at: float) -> None:
        self.sent_at = sent_at
        self.crash: Crash | None = None  # by which its connection broke off


class Crash:
    """Connections that have broken off together."""

    def __init__(self, at: float, witnesses: list[Flight]) -> None:
        self.at, self._witnesses = at, witnesses
        self.count = 0
        self._is_death: bool | None = None

    @property
    def is_death(self) -> bool:
        """Whether these were several, and a good part of all in flight. To be asked a moment later."""
        if self._is_death is None:
            broken = sum(one.crash is not None for one in self._witnesses)
            self._is_death = self.count > 1 and broken >= _PART_OF_DEATH * len(self._witnesses)
            self._witnesses = []
        return self._is_death


class Crashes:
    """The requests that are on their way, and the connections of theirs that break off."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._open: set[Flight] = set()
        self._last: Crash | None = None

    def sent(self) -> Flight:
        """Note a request; `ended` is to be called."""
        flight = Flight(self._clock())
        self._open.add(flight)
        return flight

    def ended(self, flight: Flight) -> None:
        """Note that a request is over."""
        self._open.discard(flight)

    def broke_off(self, flight: Flight) -> Crash:
        """Note that the connection of a request has broken off before its answer was complete."""
        now, crash = self._clock(), self._last
        if crash is None or now - crash.at > _TOGETHER_S or flight.sent_at > crash.at:
            crash = self._last = Crash(now, list(self._open))
        crash.count += 1
        flight.crash = crash
        return crash


class History:
    """What has happened to one row.

    Attributes:
        failures: attempts that have failed.
        deaths: of these, those that befell many rows in flight, while it was not tried alone.
    """

    def __init__(self) -> None:
        self.failures = self.deaths = 0
        self.most: float = math.inf  # that are tried together with it, itself included

    @property
    def is_suspect(self) -> bool:
        """Whether it is to be tried apart."""
        return self.deaths >= MAX_DEATHS

    def has_failed(self, crash: Crash | None, company: int) -> None:
        """Count a failed attempt, at which so many suspects were tried together; 0: it was none."""
        self.failures += 1
        if crash is not None and company != 1 and crash.is_death:
            self.deaths += 1
            self.most = company // 2 or math.inf

    def is_over(self, most_failures: int) -> bool:
        """Whether it has failed so often, and often enough without the company of others, that it is given up."""
        return self.failures >= most_failures and self.failures - self.deaths >= MIN_OWN_FAILURES


class Suspects:
    """Rows that are tried apart, in rounds: the next one begins when all of the one before have come to an end."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[History, asyncio.Future[int]]] = deque()
        self._left = 0  # of this round

    @asynccontextmanager
    async def turn(self, history: History) -> AsyncIterator[int]:
        """Wait for a suspect's turn; gives with how many it is tried, itself included."""
        turn: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._waiting.append((history, turn))
        if not self._left:
            self._begin()
        try:
            yield await turn
        finally:
            if turn.done() and not turn.cancelled():
                self._left -= 1
            if not self._left:
                self._begin()

    def _begin(self) -> None:
        """Begin a round with those that wait, the first of them at any rate."""
        chosen: list[asyncio.Future[int]] = []
        others: deque[tuple[History, asyncio.Future[int]]] = deque()
        most = math.inf
        for history, turn in self._waiting:
            if turn.cancelled():
                continue
            if len(chosen) < min(most, history.most):
                chosen.append(turn)
                most = min(most, history.most)
            else:
                others.append((history, turn))
        self._waiting, self._left = others, len(chosen)
        for turn in chosen:
            turn.set_result(len(chosen))
