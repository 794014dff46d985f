"""The agent of a worker's further nodes: it keeps the engine's process there running, for as long as the head's lives.

Only the head decides. A follower whose process has died says so in the run directory and leaves it to the head to end
the worker with that reason, or to call the ranks together again; if nothing comes of it, the follower fails the job.
"""

import time
from pathlib import Path

from ...core.errors import EngineError, RunDirectoryError
from ...core.records import HEARTBEAT_S, RendezvousRecord, WorkerState
from ..engines.launch import EngineLaunch
from .process import EngineProcess
from .task import Task

_TICK_S = 0.5
_HEAD_ACTS_S = 10.0  # so long a head may take to do something about a process that has died
_TERMINATE_GRACE_S = 25.0  # longer than a head drains after SIGTERM, shorter than Slurm's KillWait


class Follower:
    """The agent of node rank 1 or higher."""

    def __init__(self, task: Task, private: Path) -> None:
        self._task, self._private = task, private
        self._signals = task.signals

    def run(self) -> None:
        """Keep the engine's process here until the head has ended. Raises EngineError where the process dies before."""
        self._task.read_energy()
        with self._task.staged(self._pause):
            rendezvous = self._await_call(None, self._task.pool.start_timeout_s)
            if rendezvous is None and not self._is_ending():
                raise EngineError(f"node rank {self._task.place.node_rank}: the head has not said where to meet")
            while rendezvous is not None:
                rendezvous = self._attend(rendezvous)

    def _pause(self, seconds: float) -> bool:
        """Wait so long at most; False if the worker is to end."""
        self._signals.wait(seconds)
        return not self._is_ending()

    def _attend(self, rendezvous: RendezvousRecord) -> RendezvousRecord | None:
        """Run the engine's process for this meeting; where the next one is, or None if the head has ended."""
        launch = self._task.launch(self._private, rendezvous)
        engine = self._task.spawn(launch)
        try:
            self._write(engine, launch)
            self._stay(engine, launch, rendezvous)
            has_died = engine.exit_code() is not None
            if has_died:
                self._write(engine, launch)
        finally:
            engine.stop()
        if not has_died:
            return self._call_after(rendezvous)
        call = self._await_call(rendezvous, _HEAD_ACTS_S)
        if call is None and not self._is_ending():
            raise EngineError(str(self._task.node_record(engine, launch)))
        return call

    def _stay(self, engine: EngineProcess, launch: EngineLaunch, rendezvous: RendezvousRecord) -> None:
        """Wait until the process dies, or the head has ended or calls the ranks to another rendezvous.

        A signal is no reason to leave: the head drains, and this process must compute with it to the end.
        """
        deadline, next_note = float("inf"), time.monotonic() + HEARTBEAT_S
        while engine.exit_code() is None and time.monotonic() < deadline:
            if self._call_after(rendezvous) or self._task.head_state() is WorkerState.GONE:
                return
            if self._signals.terminated:
                deadline = min(deadline, time.monotonic() + _TERMINATE_GRACE_S)
            if self._task.energy is not None and self._task.energy.latest is not None and time.monotonic() > next_note:
                next_note = time.monotonic() + HEARTBEAT_S
                self._write(engine, launch)
            self._signals.wait(_TICK_S)

    def _await_call(self, before: RendezvousRecord | None, timeout_s: float) -> RendezvousRecord | None:
        """Where the head calls the ranks together, other than `before`; None if it does not."""
        deadline = time.monotonic() + timeout_s
        while not (call := self._call_after(before)) and not self._is_ending() and time.monotonic() < deadline:
            self._signals.wait(_TICK_S)
        return call

    def _call_after(self, before: RendezvousRecord | None) -> RendezvousRecord | None:
        try:
            call = self._task.run.read_rendezvous(self._task.worker_id, self._task.place.epoch)
        except RunDirectoryError:  # cannot be read now: no call
            return None
        return call if call != before else None

    def _is_ending(self) -> bool:
        return bool(self._signals.reason) or self._task.head_state() in (WorkerState.DRAINING, WorkerState.GONE)

    def _write(self, engine: EngineProcess, launch: EngineLaunch) -> None:
        task = self._task
        try:
            task.run.write_node(task.worker_id, task.place.epoch, task.node_record(engine, launch))
        except RunDirectoryError as error:  # the head notices when its own process fails
            print(error, flush=True)
