"""Which batches are worked on, by which processes. One manager acts for a deployment: it holds a lease.

It imports nothing that is heavy, and where no batch is to be done it only lists a folder every two seconds.
"""

import logging
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from ....core.errors import RunDirectoryError
from ....core.processes.process import describe_exit
from ....core.rundir import RunDirectory
from ....router.batches.errors import NotThereError
from ....router.batches.progress import entered
from ....router.batches.records import BatchState, InputError, Status
from ....router.batches.store import BatchStore
from ...fleet.lease import Lease
from .turns import MOST_AT_WORK, AtWork, Waiting, to_start, to_stop

IDLE_S, BUSY_S = 2.0, 1.0
MOST_VALIDATING = 2
_RENEW_S = 5.0
_SWEEP_S = 600.0
_MOST_TRIES = 5
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 2.0, 60.0
VALIDATE, DO, FAIL = "validate", "do", "fail"

_log = logging.getLogger(__name__)


class Child(Protocol):
    """A process that works on one batch."""

    def poll(self) -> int | None:
        """Its exit status, once it has ended."""

    def last_words(self) -> str:
        """What it has said at its end. Called once, when it has ended."""

    def share_with(self, count: int) -> None:
        """Tell it how many batches are at work."""

    def stop(self) -> None:
        """Let it end soon; the batch goes on later."""

    def kill(self) -> None:
        """End it now."""


StartChild = Callable[[str, str, str], Child]  # id, step, reason


@dataclass
class _Running:
    child: Child
    tenant: str
    step: str
    since: float
    is_stopping: bool = False


@dataclass
class _Tried:
    """What is remembered of a batch whose process has ended before the batch has."""

    rested_at: float = 0.0
    failures: int = 0
    next_at: float = 0.0
    reason: str = ""


class Manager:
    """Looks at the batches of one deployment.

    Args:
        run: of the deployment.
        start: starts a process for a batch.
        lease: held while there is something to do.
        monotonic: seconds.
    """

    def __init__(
        self,
        run: RunDirectory,
        start: StartChild,
        lease: Lease | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store, self._start_child, self._now = BatchStore(run), start, monotonic
        self._lease = lease or Lease(run, path=run.openai_batches_lease_path)
        self._renewed_at: float | None = None  # None: the lease is another's, or nobody's
        self._swept_at = -_SWEEP_S
        self._ended: set[str] = set()
        self._running: dict[str, _Running] = {}
        self._tried: dict[str, _Tried] = {}

    def tick(self) -> float:
        """One look; the seconds until the next one. Raises RunDirectoryError."""
        now = self._now()
        self._sweep(now)
        open_ids = [id for id in self._store.ids() if id not in self._ended]
        if not open_ids and not self._running:
            self._give_back()
            return IDLE_S
        if not self._holds_lease(now):
            self.kill()
            return IDLE_S
        self._reap(now)
        self._work_on(open_ids, now)
        return BUSY_S

    def close(self) -> None:
        """End all processes, and let another manager begin at once."""
        self.kill()
        self._give_back()

    def kill(self) -> None:
        """End all processes now: what they have kept is whole."""
        for running in self._running.values():
            running.child.kill()
        self._running.clear()

    def _sweep(self, now: float) -> None:
        if now - self._swept_at < _SWEEP_S:
            return
        self._swept_at = now
        try:
            self._store.sweep()
            self._store.files.sweep()
        except NotThereError:  # its tenant was faster
            self._swept_at = now - _SWEEP_S

    def _holds_lease(self, now: float) -> bool:
        if self._renewed_at is None or now - self._renewed_at >= _RENEW_S:
            self._renewed_at = now if self._lease.renew() else None
        return self._renewed_at is not None

    def _give_back(self) -> None:
        if self._renewed_at is not None:
            self._renewed_at = None
            self._lease.release()

    def _reap(self, now: float) -> None:
        for id, running in list(self._running.items()):
            code = running.child.poll()
            if code is None:
                continue
            del self._running[id]
            reason = running.child.last_words()
            tried = self._tried.setdefault(id, _Tried())
            tried.rested_at = now
            if code == 0:
                tried.failures = 0
                continue
            tried.reason = reason or f"its process {describe_exit(code)}"
            _log.warning("batch %s, step %s: %s", id, running.step, tried.reason)
            tried.failures += 1
            tried.next_at = now + min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2 ** (tried.failures - 1))

    def _work_on(self, ids: list[str], now: float) -> None:
        states: dict[str, tuple[str, BatchState]] = {}
        for id in ids:
            try:
                request, state = self._store.request(id), self._store.state(id)
            except RunDirectoryError as error:  # it concerns this batch only
                self._complain(id, str(error))
                continue
            if request is None:
                continue
            if state.has_ended and id not in self._running:
                self._forget(id)
            elif id not in self._running and self._may_start(id, now):
                states[id] = (request.tenant, state)
        self._validate(states, now)
        self._turn(states, now)

    def _validate(self, states: dict[str, tuple[str, BatchState]], now: float) -> None:
        """Begin with batches of the tenants that have the fewest being validated, then with the oldest."""
        count = Counter(running.tenant for running in self._running.values() if running.step == VALIDATE)
        waiting = [id for id, (_, state) in states.items() if state.status is Status.VALIDATING]
        while waiting and count.total() < MOST_VALIDATING:
            id = min(waiting, key=lambda id: (count[states[id][0]], id))
            waiting.remove(id)
            count[states[id][0]] += 1
            self._start(id, states[id][0], VALIDATE, now)

    def _turn(self, states: dict[str, tuple[str, BatchState]], now: float) -> None:
        waiting = [
            Waiting(id=id, tenant=tenant, rested_at=self._tried[id].rested_at if id in self._tried else 0.0)
            for id, (tenant, state) in states.items()
            if state.status is not Status.VALIDATING
        ]
        at_work = [
            AtWork(id=id, tenant=running.tenant, since=running.since, is_stopping=running.is_stopping)
            for id, running in self._running.items()
            if running.step != VALIDATE
        ]
        chosen = to_start(waiting, at_work)
        for id in chosen:
            self._start(id, states[id][0], DO, now)
        stopped = to_stop([batch for batch in waiting if batch.id not in chosen], at_work, now)
        if stopped is not None:
            self._running[stopped].is_stopping = True
            self._running[stopped].child.stop()
        count = len(at_work) + len(chosen)
        for running in self._running.values():
            running.child.share_with(min(count, MOST_AT_WORK))

    def _start(self, id: str, tenant: str, step: str, now: float) -> None:
        tried = self._tried.get(id)
        if tried is not None and tried.failures > _MOST_TRIES:
            self._give_up(id, tried.reason)
            return
        if tried is not None and tried.failures == _MOST_TRIES:
            step = FAIL
        child = self._start_child(id, step, tried.reason if tried is not None else "")
        self._running[id] = _Running(child, tenant, step, now)

    def _may_start(self, id: str, now: float) -> bool:
        tried = self._tried.get(id)
        return tried is None or now >= tried.next_at

    def _give_up(self, id: str, reason: str) -> None:
        """Say that a batch has failed of which not even what is done could be delivered."""
        error = InputError(code="batch_failed", message=reason[:2000])
        self._store.change(id, lambda state: entered(state, Status.FAILED, time.time(), errors=(error,)))

    def _forget(self, id: str) -> None:
        """A batch has ended: see to it that nothing is left of its work, and look at it no more."""
        self._store.clear(id)
        self._ended.add(id)
        self._tried.pop(id, None)

    def _complain(self, id: str, reason: str) -> None:
        tried = self._tried.setdefault(id, _Tried())
        if tried.reason != reason:
            _log.warning("batch %s: %s", id, reason)
            tried.reason = reason


class ChildProcess:
    """Implements `Child`."""

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        self._process = process
        self._told = 0

    def poll(self) -> int | None:
        """Its exit status, once it has ended."""
        return self._process.poll()

    def last_words(self) -> str:
        """What it has said at its end. Called once, when it has ended."""
        with self._process as process:
            assert process.stdout is not None
            return process.stdout.read(65536).decode(errors="replace").strip()

    def share_with(self, count: int) -> None:
        """Tell it how many batches are at work."""
        assert self._process.stdin is not None
        if count == self._told:
            return
        self._told = count
        try:
            self._process.stdin.write(b"%d\n" % count)
            self._process.stdin.flush()
        except OSError:
            return  # it has just ended

    def stop(self) -> None:
        """Let it end soon; the batch goes on later."""
        self._process.terminate()

    def kill(self) -> None:
        """End it now."""
        self._process.kill()
        self.last_words()
