"""How much the loss of a worker says against a request that the worker had.

A request that takes its engine down does that at every worker, soon after it has come there. A request that is merely
there when a worker is killed is not. So a loss counts by how unlikely it would be by chance:

    chance = rate at which other workers are lost lately, of each worker * time that this worker had the request
    points = -log10(5 * chance)

A request of 7 points gets no further worker: while no others are lost, these are four workers. One that the next loss
could bring there is tried alone: after a pause, at a worker that has no other such request until the first byte of its
answer has come. So of all requests that a worker had when it was lost, at most one is refused, and where many workers
are lost one after the other, the pause shows it.

Many such requests would wait for each other for long. Those that have waited half a minute for their turn, while there
were workers, are tried together. If that worker is lost, none of them is refused for it, and half as many are tried
together next: so N of them cost log2(N) workers more.
"""

import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

GUILTY = 7.0
# The points of one loss at most; those of a worker that had begun to answer are fewer.
MOST_UNBEGUN, MOST_BEGUN = 2.0, 1.0
# Lost workers of each worker in a second, at least: one in ten hours.
_QUIET_RATE = 1 / 36_000
# The rate is the highest of these times. The shorter one is longer than the pause: a worker that is lost meanwhile is
# known to be one of several.
WINDOWS_S = (5.0, 60.0)
_LEAST_S = 0.01
# So that losses by chance take points away rather than add some, on average.
_MARGIN = 5.0
PAUSE_S = 4.0  # before a request is tried alone
ALONE_S = 30.0  # that it waits for a worker without another one, while there are workers that could take it
ALONE = 1 << 32  # what one that is tried alone counts on the board; those that are tried together count 1 each
_UNPROVEN = GUILTY - 1.0  # points of a request whose worker was lost under several, at most

Slot = TypeVar("Slot", bound="Worker")


class Worker(Protocol):
    """One life of a worker."""

    @property
    def suspects(self) -> int:
        """Requests that are tried there alone, of all relays."""

    def suspected(self, by: int) -> None:
        """Change that number."""


@dataclass(slots=True, weakref_slot=True)
class Trial:
    """Equal requests of a tenant under which workers were lost.

    One of them at a time is sent to a worker, until its answer begins or it has failed there; the others wait, and hold
    against themselves what was found out meanwhile. Once an answer begins, nobody waits any more.
    """

    points: float = 0.0
    slots: set[int] = field(default_factory=set)
    holder: "Blame | None" = None  # of the request that is tried
    held_until: float = 0.0
    is_over: bool = False  # an answer has begun

    def holds(self, blame: "Blame") -> bool:
        """Whether a request has to wait for another one."""
        is_free = self.is_over or self.holder is None or self.holder is blame
        return not is_free and time.monotonic() < self.held_until


@dataclass(slots=True)
class Blame:
    """What is held against one request. Times are monotonic seconds."""

    points: float = 0.0
    slots: set[int] = field(default_factory=set)  # of workers that were lost while they had it
    alone_until: float | None = None  # so long it waits to be tried alone; None: there was no worker for it yet
    company: int = ALONE  # at most so many are tried together with it, itself included
    beside: int = 0  # so many were when it was tried last; 0: it was tried alone, or had begun to be answered
    worker: Worker | None = None  # where it is tried
    trial: Trial | None = None  # together with equal requests

    @property
    def is_guilty(self) -> bool:
        """Whether it gets no further worker."""
        return self.points >= GUILTY

    @property
    def is_at_stake(self) -> bool:
        """Whether one more loss could make it guilty."""
        return self.points + MOST_UNBEGUN >= GUILTY

    def add(self, slot: int, points: float) -> None:
        """Count the loss of a worker."""
        self.slots.add(slot)
        self.points = max(0.0, self.points + points)
        if self.beside:  # it may have been any of them
            self.points, self.company = min(self.points, _UNPROVEN), max(1, self.beside // 2)
        self.alone_until, self.beside = None, 0
        trial = self.trial
        if trial is not None and self.points > trial.points:
            trial.points, trial.slots = self.points, trial.slots | self.slots

    def learn(self) -> None:
        """Take over what equal requests have shown meanwhile."""
        trial = self.trial
        if trial is not None and not trial.is_over and trial.points > self.points:
            self.points, self.slots = trial.points, self.slots | trial.slots

    def allowed(self, workers: Sequence[Slot]) -> Sequence[Slot]:
        """Those of `workers` that it may go to."""
        if self.trial is not None and self.trial.holds(self):
            return ()
        if not self.is_at_stake:
            return workers
        if not workers:
            self.alone_until = None
        elif self.alone_until is None:
            self.alone_until = time.monotonic() + ALONE_S
        free = [worker for worker in workers if not worker.suspects]
        return free or ([] if self._waits else [worker for worker in workers if worker.suspects < self.company])

    @property
    def _waits(self) -> bool:
        """Whether it is to be tried alone."""
        return self.company <= 1 or self.alone_until is None or time.monotonic() <= self.alone_until

    def enter(self, worker: Worker) -> None:
        """Note that it goes to a worker."""
        if self.trial is not None and not self.trial.holds(self):
            self.trial.holder, self.trial.held_until = self, time.monotonic() + ALONE_S
        if self.is_at_stake:
            self.worker, self.beside = worker, 0 if self._waits else 1
            worker.suspected(self._weight)
            self._look_beside()

    @property
    def _weight(self) -> int:
        return 1 if self.beside else ALONE

    def _look_beside(self) -> None:
        """Note how many are tried together with it; those that were lost with it may have left already."""
        if self.beside and self.worker is not None:
            self.beside = max(self.beside, self.worker.suspects % ALONE)

    def leave(self, *, has_begun: bool = False) -> bool:
        """Note that it is tried no longer, as its answer has begun or it has failed; whether others waited for that."""
        trial = self.trial
        is_holder = trial is not None and trial.holder is self
        if trial is not None and is_holder:
            trial.holder, trial.is_over = None, trial.is_over or has_begun
        if self.worker is None:
            return is_holder
        self._look_beside()
        self.worker.suspected(-self._weight)
        self.worker = None
        if has_begun:
            self.beside = 0
        return True


class Losses:
    """The workers that were lost lately.

    Args:
        workers: how many get requests now; those that were lost are none of them.
        clock: seconds, monotonic.
    """

    def __init__(self, workers: Callable[[], int], clock: Callable[[], float] = time.monotonic) -> None:
        self._workers, self._clock = workers, clock
        self._at: dict[int, float] = {}  # by slot

    def note(self, slot: int) -> None:
        """Note that a worker was lost."""
        now = self._clock()
        self._at.pop(slot, None)
        self._at[slot] = now
        while now - (first := next(iter(self._at.items())))[1] > WINDOWS_S[-1]:
            del self._at[first[0]]

    def points(self, own: Iterable[int], had_s: float, *, has_begun: bool) -> float:
        """What a loss counts. `own`: slots of the workers that were lost while they had the request.

        `had_s`: how long the worker that is lost now had it. `has_begun`: to answer.
        """
        now, own = self._clock(), set(own)
        ages = [now - at for slot, at in self._at.items() if slot not in own]
        per_s = max(sum(age <= window for age in ages) / window for window in WINDOWS_S)
        chance = max(_QUIET_RATE, per_s / max(1, self._workers())) * max(_LEAST_S, had_s)
        return min(MOST_BEGUN if has_begun else MOST_UNBEGUN, -math.log10(_MARGIN * min(1.0, chance)))
