"""The agent of a worker's first node: it decides, serves HTTP through its engine, and owns the worker's record.

starting -> ready -> draining -> gone.
"""

import os
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from ...core.errors import EngineError, RunDirectoryError, SlurminferError
from ...core.keys import new_key
from ...core.logs.text import lost_task, remark, tail
from ...core.net.sockets import hold_port, is_port_free
from ...core.processes import setup
from ...core.records import EnergyRecord, RendezvousRecord, WorkerRecord, WorkerState
from ..engines.launch import EngineLaunch
from .gate import Gate
from .group import EngineGroup
from .keeper import RecordKeeper
from .placement import gpus
from .probe import EngineProbe
from .task import SOCKET_NAME, Task

_TICK_S = 0.5
_ORDERS_EVERY_S = 2.0
_PORT_ATTEMPTS = 3
_PORT_RELEASE_S = 1.0  # so long a killed process may take to give its port back
_TOKENS_TO_TRUST = 2  # one could be an accident of a half-started engine
_HEALTH_MISSES_TO_CONDEMN = 60
# The router looks every second: only after two looks can nothing new arrive.
_ROUTER_NOTICES_S = 2.5
_TERMINATE_GRACE_S = 20.0
_NOTHING_DRAWN = EnergyRecord(cpu_j=0.0, gpu_j=0.0)


class Head:
    """The agent of node rank 0."""

    def __init__(self, task: Task, private: Path) -> None:
        self._task, self._private = task, private
        self._pool, self._place, self._signals = task.pool, task.place, task.signals
        self._energy_before = self._energy_of_epochs()
        self._keeper = RecordKeeper(task.run.write_worker, self._first_record())
        self._gate: Gate | None = None
        self._leaving = ExitStack()  # what takes time when all is said
        self._next_order_at = 0.0

    def run(self) -> None:
        """Run the engine until a signal comes. Raises EngineError where it fails, here or on another node."""
        try:
            self._live()
            reason = self._why_ended()
            self._note(WorkerState.GONE, reason=reason)  # at once: the scheduler may not answer in time
            if self._signals.terminated and (why := self._task.hooks.why_ended()):
                self._note(WorkerState.GONE, reason=f"{reason} ({why})")
        except SlurminferError as error:
            self._note(WorkerState.GONE, reason=str(error))
            raise
        finally:
            self._task.standby.close()
            if self._task.energy is not None:
                self._task.energy.close()
                self._note_energy()
            self._keeper.close()
            self._leaving.close()

    def _obey_now_and_then(self) -> None:
        if time.monotonic() >= self._next_order_at:
            self._next_order_at = time.monotonic() + _ORDERS_EVERY_S
            self._task.obey()
            self._note_energy()

    def _note_energy(self) -> None:
        """Write down what the job has drawn so far, where all of its nodes and epochs have said it."""
        found = self._energy_of_nodes()
        if found is None or self._energy_before is None:
            return
        total = self._energy_before + found
        if total != self._keeper.record.energy:
            self._keeper.note(energy=total)

    def _energy_of_nodes(self) -> EnergyRecord | None:
        total = self._task.energy.latest if self._task.energy is not None else None
        if total is None or self._pool.nodes == 1:
            return total
        try:
            others = self._task.run.read_nodes(self._task.worker_id, self._place.epoch, self._pool.nodes)
        except RunDirectoryError:
            return None
        parts = [node.energy for node in others if node.energy is not None]
        return sum(parts, total) if len(parts) == self._pool.nodes - 1 else None

    def _live(self) -> None:
        self._note(WorkerState.STARTING)
        self._task.obey()
        if self._signals.reason:  # it has come back from the queue although another worker has taken over
            return
        weights = self._leaving.enter_context(self._task.staged(self._pause))
        if not self._pause(0.0):
            return
        self._note(WorkerState.STARTING, stage_s=weights.seconds, remark=self._with_remark(weights.remark))
        with ExitStack() as ending:
            if not self._place.local:
                self._gate = Gate(self._task, self._private / SOCKET_NAME)
                ending.callback(self._gate.close)
            group = self._start()
            ending.callback(group.process.stop)
            probe = self._probe(group.launch)
            ending.callback(probe.close)
            self._watch(group, probe)
            self._drain(group, probe)

    def _pause(self, seconds: float) -> bool:
        """Wait so long at most; False if the worker is to end."""
        self._signals.wait(seconds)
        self._obey_now_and_then()
        return not self._signals.reason

    def _why_ended(self) -> str:
        """The signal; and whom Slurm has lost, where it sent SIGTERM because of that."""
        log = self._task.run.logs_of(self._task.worker_id) / self._task.log_name
        # The log of a job that was requeued goes on: this run's part of it begins where this agent has spoken.
        lost = lost_task(tail(log).rpartition(f"starting on {self._place.host}")[2])
        is_due = lost and self._signals.terminated and self._pool.nodes > 1
        return f"{self._signals.reason}: {lost}" if is_due else self._signals.reason

    def _start(self) -> EngineGroup:
        """Start the engine and wait for real tokens; again where somebody was quicker to bind the ranks' port."""
        if self._place.local and not self._task.is_share:
            gpus.settle(self._task.spec, self._task.slot)
        self._task.read_energy()
        for _ in range(_PORT_ATTEMPTS):
            with ExitStack() as held:
                group = self._launch(held)
                started = time.monotonic()
                try:
                    self._await_tokens(group)
                except EngineError:
                    has_exited = group.process.exit_code() is not None
                    group.process.stop()
                    if not has_exited or self._gets_port_back(group.launch):
                        raise
                    continue
                if not self._signals.reason:
                    staged_s = self._keeper.record.stage_s or 0.0
                    loaded_s = round(staged_s + time.monotonic() - started, 2)
                    self._note(WorkerState.READY, load_s=loaded_s, remark=self._remark(group))
                return group
        raise EngineError(f"no port could be bound on {self._place.host} in {_PORT_ATTEMPTS} attempts")

    def _remark(self, group: EngineGroup) -> str:
        """What the user should know although the worker works."""
        return self._with_remark(remark(tail(group.process.log), self._task.adapter.log_format))

    def _with_remark(self, said: str) -> str:
        return "; ".join(part for part in (self._keeper.record.remark, self._task.remark, said) if part)

    def _launch(self, held: ExitStack) -> EngineGroup:
        """Start the own process, and call the other nodes' to it. The ranks' port is kept from others by `held`."""
        rendezvous = None
        if self._pool.layout.ranks > 1:
            port = held.enter_context(hold_port(self._task.address)).getsockname()[1]
            rendezvous = RendezvousRecord(address=f"{self._task.address}:{port}", secret=new_key())
        if self._pool.nodes > 1 and rendezvous is not None:
            self._task.run.write_rendezvous(self._task.worker_id, self._place.epoch, rendezvous)
        launch = self._task.launch(self._private, rendezvous)
        process = self._task.spawn(launch)
        url = self._gate and self._gate.url
        self._note(WorkerState.STARTING, pid=process.pid, url=url, socket=str(launch.socket), key=launch.key)
        return EngineGroup(self._task, launch, process)

    def _gets_port_back(self, launch: EngineLaunch) -> bool:
        """Whether the ranks' port of an engine that has been ended is free again; else it is somebody else's."""
        if launch.rendezvous is None:
            return True
        port, deadline = int(launch.rendezvous.rpartition(":")[2]), time.monotonic() + _PORT_RELEASE_S
        while not (is_free := is_port_free(launch.address, port)) and time.monotonic() < deadline:
            time.sleep(_TICK_S / 10)
        return is_free

    def _await_tokens(self, group: EngineGroup) -> None:
        probe = self._probe(group.launch)
        deadline = time.monotonic() + self._pool.start_timeout_s
        tokens = 0
        try:
            while tokens < _TOKENS_TO_TRUST and not self._signals.reason:
                self._check(group)
                self._obey_now_and_then()
                if time.monotonic() > deadline:
                    key = f"start_timeout = {self._pool.start_timeout!r}"
                    raise EngineError(f"no token within {key} of pool '{self._pool.name}' (log: {group.process.log})")
                tokens = tokens + 1 if probe.answers_health() and probe.computes() else 0
                if tokens == 0:
                    self._signals.wait(_TICK_S)
        finally:
            probe.close()

    def _watch(self, group: EngineGroup, probe: EngineProbe) -> None:
        """Watch the engine until a signal comes. Raises EngineError where a process of it dies, or it stays silent."""
        misses = 0
        while not self._signals.reason:
            self._check(group)
            self._obey_now_and_then()
            self._task.standby.look()
            misses = 0 if probe.answers_health() else misses + 1
            if misses == _HEALTH_MISSES_TO_CONDEMN:
                log = group.process.log
                raise EngineError(f"engine has not answered /health {misses} times in a row (log: {log})")
            self._signals.wait(_TICK_S)

    def _drain(self, group: EngineGroup, probe: EngineProbe) -> None:
        """Announce it, then let what is in flight finish, as long as there is time."""
        now = time.monotonic()
        grace = _TERMINATE_GRACE_S if self._signals.terminated else self._pool.drain_seconds * 0.8
        deadline, earliest = now + grace, now + _ROUTER_NOTICES_S
        self._note(WorkerState.DRAINING, reason=self._signals.reason, drain_until=time.time() + grace)
        while time.monotonic() < deadline and not group.has_died():
            if time.monotonic() > earliest and probe.in_flight() == 0:
                return
            if self._gate is not None:
                self._gate.keep()
            self._signals.wait(_TICK_S)

    def _check(self, group: EngineGroup) -> None:
        """Raise EngineError if a process of the engine has died of itself, or the gate again and again."""
        group.check(self._signals)
        if self._gate is not None:
            self._gate.keep()

    def _probe(self, launch: EngineLaunch) -> EngineProbe:
        return EngineProbe(launch.socket, launch.key, launch.model.served_name, self._task.adapter.in_flight_metrics)

    def _energy_of_epochs(self) -> EnergyRecord | None:
        """What this job has drawn for this worker before the job was requeued, or the worker started again in it.

        None: nobody knows.
        """
        try:
            record = self._task.run.read_worker(self._task.worker_id)
        except RunDirectoryError:
            return None
        if record is not None and record.job == self._place.job:
            return record.energy
        return _NOTHING_DRAWN if self._place.epoch == 0 else None

    def _first_record(self) -> WorkerRecord:
        return WorkerRecord(
            id=self._task.worker_id,
            pool=self._pool.name,
            engine=self._pool.engine,
            model=self._task.model.served_name,
            state=WorkerState.STARTING,
            host=self._place.host,
            job=self._place.job,
            epoch=self._place.epoch,
            pid=os.getpid(),
            updated_at=time.time(),
            capacity=self._pool.max_running_requests or self._task.adapter.default_capacity,
            ends_at=self._place.ends_at,
            energy=None if self._energy_before == _NOTHING_DRAWN else self._energy_before,
            remark=f"setup: {os.environ[setup.FAILED]}" if setup.FAILED in os.environ else "",
        )

    def _note(self, state: WorkerState, **changes: Any) -> None:
        if state is not self._keeper.record.state:
            print(f"{time.strftime('%H:%M:%S')} {state} {changes.get('reason', '')}".rstrip(), flush=True)
        self._keeper.note(state=state, **changes)
