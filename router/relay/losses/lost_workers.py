"""What is held against requests: as long as they are here, and when the same bytes are sent again."""

import hashlib
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Protocol
from weakref import ref

from ...control.blamed import MOST_REQUESTS, remember
from ...control.messages import Blamed, BlamedRequests
from .blame import Blame, Losses, Trial

MEMORY_S = 600.0  # after the last loss
# An engine that answers 5xx because it is dying is seen to be dead within this time: the router probes each second.
DYING_S = 10.0


class Worker(Protocol):
    """One life of a worker."""

    slot: int
    on_lost: Callable[[], None] | None  # called when it is trusted no more

    @property
    def lost_at(self) -> float | None:
        """Since when it is not trusted, on the clock of LostWorkers; None while it is."""


class LostWorkers:
    """Counts lost workers for requests, and remembers those that got no answer by tenant and bytes.

    Another tenant's equal request is another one: nobody can have somebody else's refused. The relays of a router
    remember the same: each tells the supervisor, which tells all. At most 1,024 requests are remembered, for ten
    minutes. Requests are only hashed while there is anything to remember.

    Args:
        workers: how many get requests now.
        tell: sends to the supervisor.
        clock: seconds, monotonic; the same for all processes of a machine.
    """

    def __init__(
        self,
        workers: Callable[[], int],
        tell: Callable[[Blamed], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._tell, self._clock = tell, clock
        self._losses = Losses(workers, clock)
        self._blamed: OrderedDict[bytes, Blamed] = OrderedDict()
        self._trials: dict[bytes, ref[Trial]] = {}
        # Answers of 5xx by workers that were there still: request, worker, time.
        self._failed: deque[tuple[bytes, Worker, float]] = deque(maxlen=MOST_REQUESTS)
        self._is_one_lost = False  # of these workers, since they were looked through

    def blame(self, tenant: str, body: bytes) -> Blame | None:
        """What is held against a request that was sent before; None where that is nothing."""
        if not self._blamed and not self._failed and not self._trials:
            return None
        self._settle()
        if not self._blamed and not self._trials:
            return None
        digest = _digest(tenant, body)
        found = self._blamed.get(digest)
        blame = Blame() if found is None else Blame(found.points, set(found.slots))
        if digest in self._trials:
            blame.trial = self._trial(digest)
            blame.learn()
        if not blame.points:
            return None
        blame.trial = blame.trial or self._trial(digest)
        return blame

    def blame_of_lost(self, tenant: str, body: bytes) -> Blame:
        """What is held against a request that nothing was held against until a worker was lost under it now."""
        return Blame(trial=self._trial(_digest(tenant, body)))

    def _trial(self, digest: bytes) -> Trial:
        """What the requests of this digest share, for as long as there are any."""
        reference = self._trials.get(digest)
        trial = reference() if reference is not None else None
        if trial is None:
            trial = Trial()
            self._trials[digest] = ref(trial, lambda _: self._trials.pop(digest, None))
        return trial

    def lost(self, blame: Blame, worker: Worker, sent_at: float, *, has_begun: bool) -> None:
        """Count the loss of a worker that had the request since `sent_at`, and had begun to answer it, or not."""
        if worker.slot in blame.slots:
            return
        now = self._clock()
        own = blame.slots | {worker.slot}
        blame.add(worker.slot, self._losses.points(own, now - sent_at, has_begun=has_begun))
        self._losses.note(worker.slot)

    def ended_by_slurm(self, worker: Worker) -> None:
        """Note the loss of a worker that nobody is blamed for."""
        self._losses.note(worker.slot)

    def failed(self, tenant: str, body: bytes, worker: Worker) -> None:
        """Note that `worker` has answered 5xx and lived on, for now."""
        self._failed.append((_digest(tenant, body), worker, self._clock()))
        worker.on_lost = self._note_lost

    def ended(self, tenant: str, body: bytes, blame: Blame, *, is_answered: bool) -> None:
        """Remember what is held against a request that is over; nothing if a worker has answered it well."""
        digest, blame.trial = _digest(tenant, body), None
        points = 0.0 if is_answered else blame.points
        if points or digest in self._blamed:
            self._remember(digest, points, blame.slots)

    def hear(self, blamed: BlamedRequests) -> None:
        """Take what all relays remember."""
        self._blamed = OrderedDict((one.request, one) for one in blamed.requests)

    def _remember(self, digest: bytes, points: float, slots: set[int]) -> None:
        blamed = Blamed(request=digest, points=points, slots=sorted(slots), until=self._clock() + MEMORY_S)
        remember(self._blamed, blamed)
        self._tell(blamed)

    def _note_lost(self) -> None:
        self._is_one_lost = True

    def _settle(self) -> None:
        """Forget what is long ago; count workers that were lost soon after they had answered 5xx."""
        now = self._clock()
        while self._blamed and next(iter(self._blamed.values())).until <= now:
            self._blamed.popitem(last=False)
        if self._is_one_lost:
            self._is_one_lost = False
            self._count_lost()
        while self._failed and self._failed[0][2] + DYING_S < now:
            self._failed.popleft()

    def _count_lost(self) -> None:
        failed = list(self._failed)
        self._failed.clear()
        for digest, worker, at in failed:
            if worker.lost_at is not None and at <= worker.lost_at <= at + DYING_S:
                self._count(digest, worker, at)
            else:
                self._failed.append((digest, worker, at))

    def _count(self, digest: bytes, worker: Worker, at: float) -> None:
        found = self._blamed.get(digest)
        blame = Blame() if found is None else Blame(found.points, set(found.slots))
        if worker.slot not in blame.slots:
            self.lost(blame, worker, at, has_begun=False)
            self._remember(digest, blame.points, blame.slots)


def _digest(tenant: str, body: bytes) -> bytes:
    digest = hashlib.sha256(b"%b\n" % tenant.encode())
    digest.update(body)
    return digest.digest()
