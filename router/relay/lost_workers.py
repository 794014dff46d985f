"""Which requests were at work when workers were lost: one that has taken two workers gets no third."""

import hashlib
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

MAX_WORKERS_LOST = 2
MEMORY_S = 600.0  # after the last loss
MOST_REQUESTS = 1024
# An engine that answers 5xx because it is dying is seen to be dead within this time: the router probes each second.
DYING_S = 10.0


class Worker(Protocol):
    """One life of a worker."""

    lost_at: float | None  # since when it is not trusted, on the clock of LostWorkers; None while it is

    @property
    def life(self) -> tuple[str, str, int, int]:
        """What tells this life from all others."""


@dataclass(slots=True)
class _Case:
    lives: set[tuple[str, str, int, int]]  # of workers that were lost
    until: float


class LostWorkers:
    """Counts lost workers by the bytes of the request that they worked on, so that one sent again is recognised.

    A few minutes and at most 1,024 requests are remembered. Requests are only hashed while there is anything to
    remember.

    Args:
        clock: seconds, monotonic.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._cases: OrderedDict[bytes, _Case] = OrderedDict()
        # Answers of 5xx by workers that were there still: request, worker, time.
        self._failed: deque[tuple[bytes, Worker, float]] = deque(maxlen=MOST_REQUESTS)

    def lost(self, body: bytes, worker: Worker) -> None:
        """Note that `worker` was lost while it worked on `body`."""
        self._count(_digest(body), worker)

    def failed(self, body: bytes, worker: Worker) -> None:
        """Note that `worker` has answered 5xx and lived on, for now."""
        self._failed.append((_digest(body), worker, self._clock()))

    def answered(self, body: bytes) -> None:
        """Note that a worker has answered `body` well, so that it is no reason for anything."""
        if self._cases:
            self._cases.pop(_digest(body), None)

    def is_barred(self, body: bytes) -> bool:
        """Whether as many workers were lost to `body` as may be."""
        if not self._cases and not self._failed:
            return False
        self._settle()
        case = self._cases.get(_digest(body))
        return case is not None and len(case.lives) >= MAX_WORKERS_LOST

    def _count(self, digest: bytes, worker: Worker) -> None:
        case = self._cases.setdefault(digest, _Case(set(), 0.0))
        case.lives.add(worker.life)
        case.until = self._clock() + MEMORY_S
        self._cases.move_to_end(digest)
        if len(self._cases) > MOST_REQUESTS:
            self._cases.popitem(last=False)

    def _settle(self) -> None:
        """Forget what is long ago; count workers that were lost soon after they had answered 5xx."""
        now = self._clock()
        while self._cases and next(iter(self._cases.values())).until <= now:
            self._cases.popitem(last=False)
        for _ in range(len(self._failed)):
            digest, worker, at = self._failed.popleft()
            if worker.lost_at is not None and at <= worker.lost_at <= at + DYING_S:
                self._count(digest, worker)
            elif now <= at + DYING_S:
                self._failed.append((digest, worker, at))


def _digest(body: bytes) -> bytes:
    return hashlib.sha256(body).digest()
