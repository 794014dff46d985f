"""The view of all workers: what the run directory says, what probes and requests show. Refreshed, never stored."""

import asyncio
import itertools
import logging
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping

from ...core.background.rounds import Rounds
from ...core.background.threads import in_thread
from ...core.errors import RouterError
from ...core.records import WorkerState
from ...core.rundir import RunDirectory
from ...core.workers.records import WorkerRecords
from ..control.messages import Suspect, WorkerView
from .attendant import Attendant
from .probe import describe
from .records import Found, merge, merge_blind, read_records
from .worker import Life, Worker

LOOK_INTERVAL_S = 1.0
# For reading thousands of records: at most a tenth of the time.
_IDLE_SHARE = 9.0
# A filesystem may stand still; probes go on meanwhile, and the view stays as it is.
_READ_WAIT_S = 2.0
_MOST_COMPLAINTS = 20  # logged of one look

_log = logging.getLogger(__name__)


class Registry:
    """The workers by id.

    Args:
        run: the deployment's directory.
        slot_of: gives the life of a worker its column of the board, always the same for a life; raises RouterError
            where there is none. By default lives are counted.
        rounds: of the supervisor.

    `changed` is set whenever `views` has become another; whoever tells the relays waits for it and clears it.
    """

    def __init__(
        self, run: RunDirectory, slot_of: Callable[[Life], int] | None = None, rounds: Rounds | None = None
    ) -> None:
        self._run, self._records, self._rounds = run, WorkerRecords(run), rounds or Rounds()
        self._slot_of = slot_of or _counting()
        self._workers: dict[str, Worker] = {}
        self._attendants: dict[Worker, Attendant] = {}
        self._ending: set[asyncio.Task[None]] = set()  # attendants of lives that are over
        self._reading: asyncio.Future[Found] | None = None
        self._read_s = 0.0  # how long the last reading took
        self._complaints: set[str] = set()  # files that have been complained about
        self._blind_because = ""
        self._refused = ""  # a worker for which there was no slot, and why
        self._load_s: dict[str, float] = {}  # by pool, how long its last worker took to start
        self._served_at: dict[str, float] = {}  # by pool, when relays have told last of an answer of its workers
        self.changed = asyncio.Event()

    def all(self) -> list[Worker]:
        """Every worker of the deployment, by id."""
        return list(self._workers.values())

    def set_limits(self, ends_at: Mapping[str, float | None]) -> None:
        """Take over walltime limits (Unix time, by worker's id) that the scheduler says now.

        They may have been changed since the jobs began. Without one, what the worker's agent has found counts.
        """
        for worker in self._workers.values():
            worker.changed_limit = ends_at.get(worker.id)
            self._show(worker)

    def views(self) -> list[WorkerView]:
        """What relays are to know of every worker."""
        return [worker.shown for worker in self._workers.values() if worker.shown is not None]

    def choosable(self, model: str | None = None) -> list[Worker]:
        """The workers that may get a request now; of any model if `model` is None."""
        return [w for w in self._workers.values() if w.choosable and model in (None, w.record.model)]

    def serving(self, model: str) -> list[Worker]:
        """The workers of `model`, whatever their state."""
        return [worker for worker in self._workers.values() if worker.record.model == model]

    def counts(self) -> dict[str, int]:
        """Number of workers by state; `ready` ones that do not answer count as `unreachable`."""
        states = Counter(_standing(worker) for worker in self._workers.values())
        return {state: states[state] for state in ("ready", "unreachable", "starting", "draining", "gone")}

    @property
    def load_s(self) -> Mapping[str, float]:
        """By pool, seconds that its last worker took from the start of its engine to its first token."""
        return self._load_s

    @property
    def served_at(self) -> Mapping[str, float]:
        """By pool, when its workers have answered a request last, in monotonic seconds."""
        return self._served_at

    def suspect(self, suspect: Suspect) -> None:
        """A request has failed at a worker: ask the worker at once how it is, and eject it if that happens again."""
        for worker, attendant in self._attendants.items():
            if worker.slot == suspect.slot:
                _log.info("worker %s is suspected (%s): %s", worker.id, suspect.kind, suspect.reason)
                attendant.fault(suspect.kind, suspect.reason)

    def served(self, counts: Mapping[int, int]) -> None:
        """Take the number of requests that workers have answered well since the last call, by slot."""
        now = time.monotonic()
        for worker in self._attendants:
            count = counts.get(worker.slot, 0)
            worker.trust.served(now, count)
            if count:
                self._served_at[worker.record.pool] = now

    async def look(self) -> None:
        """Read the run directory and see every ready worker answer, or not."""
        await self._read()
        await asyncio.gather(*(a.was_asked() for worker, a in self._attendants.items() if worker.probeable))

    async def watch(self) -> None:
        """Keep the view fresh until cancelled. A slow probe holds up neither the others nor the next look."""
        while True:
            await asyncio.sleep(max(LOOK_INTERVAL_S, _IDLE_SHARE * self._read_s))
            with self._rounds.guarded("registry"):  # the next look may succeed
                await self._look_or_go_blind()

    async def close(self) -> None:
        """Ask nobody anything any more."""
        for attendant in self._attendants.values():
            self._end(attendant)
        self._attendants = {}
        await asyncio.gather(*self._ending)

    async def _look_or_go_blind(self) -> None:
        try:
            await self._read()
        except Exception as error:
            self._go_blind(f"a look failed: {error!r}")
            raise

    async def _read(self) -> None:
        """Follow what the run directory says now. Whatever goes wrong with that, the view stays."""
        if self._reading is None:
            self._reading = in_thread(self._read_timed)
        done, _ = await asyncio.wait({self._reading}, timeout=_READ_WAIT_S)
        if not done:
            self._go_blind(f"{self._run.workers_path} is still being read")
            return
        reading, self._reading = self._reading, None
        error = reading.exception()
        if error is not None:
            self._go_blind(describe(error))
        elif self._expects_records() and not reading.result().records and not reading.result().complaints:
            self._go_blind(f"{self._run.workers_path} has become empty")
        else:
            self._blind_because = ""
            self._follow(reading.result())

    def _expects_records(self) -> bool:
        """Whether a worker is known that has not said that it ends: those that have may be forgotten."""
        return any(worker.record.state is not WorkerState.GONE for worker in self._workers.values())

    def _read_timed(self) -> Found:
        began = time.monotonic()
        try:
            return read_records(self._run, self._records)
        finally:
            self._read_s = time.monotonic() - began

    def _follow(self, found: Found) -> None:
        new = sorted(found.complaints.keys() - self._complaints)
        for name in new[:_MOST_COMPLAINTS]:
            _log.warning("%.1000s", found.complaints[name])
        if len(new) > _MOST_COMPLAINTS:
            _log.warning("%d more worker files ignored", len(new) - _MOST_COMPLAINTS)
        self._complaints = set(found.complaints)
        self._load_s |= {record.pool: record.load_s for record in found.records.values() if record.load_s is not None}
        self._replace(merge(self._workers, found, time.monotonic()))

    def _go_blind(self, reason: str) -> None:
        if reason != self._blind_because:
            _log.warning("the view of the workers stays as it was: %s", reason)
        self._blind_because = reason
        self._replace(merge_blind(self._workers, time.monotonic()))

    def _replace(self, workers: dict[str, Worker]) -> None:
        before = set(self._attendants)
        self._workers = workers = self._with_slots(workers)
        for worker in before.difference(workers.values()):
            self._end(self._attendants.pop(worker))
            self.changed.set()
        for worker in workers.values():
            if worker not in before:
                self._attendants[worker] = Attendant(self._run, worker, self._show, self._is_dispensable, self._rounds)
            self._show(worker)

    def _with_slots(self, workers: dict[str, Worker]) -> dict[str, Worker]:
        """The workers, without new ones for which the board has no room."""
        found, refused = {}, ""
        for worker_id, worker in workers.items():
            try:
                worker.slot = self._slot_of(worker.life)
                found[worker_id] = worker
            except RouterError as error:
                refused = f"worker {worker_id} gets no requests: {error}"
        if refused and refused != self._refused:
            _log.warning("%s", refused)
        self._refused = refused
        return found

    def _end(self, attendant: Attendant) -> None:
        task = asyncio.create_task(attendant.close())
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    def _show(self, worker: Worker) -> None:
        """Let the relays be told of the worker, if they do not know what there is to tell."""
        view = worker.view(self._run)
        if view != worker.shown:
            worker.shown = view
            self.changed.set()
        if worker.is_new:  # it has become ready since it was asked last, if ever
            self._attendants[worker].hurry()

    def _is_dispensable(self, worker: Worker) -> bool:
        return any(other is not worker for other in self.choosable(worker.record.model))


def _counting() -> Callable[[Life], int]:
    slots: defaultdict[Life, int] = defaultdict(itertools.count().__next__)
    return lambda life: slots[life]


def _standing(worker: Worker) -> str:
    return "unreachable" if worker.standing == WorkerState.READY and not worker.choosable else worker.standing
