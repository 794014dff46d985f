"""The agent: lives the life of one worker on its node. docs/life-of-a-worker.md tells the story.

starting -> ready -> draining -> gone. The head (rank 0) owns the worker's record; the agents of further nodes only keep
their engine process running, and end when the head's does.
"""

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from ..core.cpus import allowed_cpus
from ..core.errors import EngineError, SlurminferError
from ..core.records import WorkerRecord, WorkerState
from ..core.rundir import RunDirectory
from . import numa
from .engine_process import EngineProcess
from .engines import ADAPTERS
from .launch import EngineLaunch
from .place import Place, free_port, is_port_free
from .probe import EngineProbe
from .signals import Signals

_TICK_S = 0.5
_PORT_ATTEMPTS = 3
_TOKENS_TO_TRUST = 2  # one could be an accident of a half-started engine
_HEALTH_MISSES_TO_CONDEMN = 60
# The router looks every second: only after two looks can nothing new arrive.
_ROUTER_NOTICES_S = 2.5
_TERMINATE_GRACE_S = 20.0
_ENGINE_STOP_GRACE_S = 5.0


@dataclass(frozen=True)
class WorkerEntry:
    """What a worker's job runs. submitit pickles it; `checkpoint` makes the job requeueable."""

    run_path: Path
    worker_id: str

    def __call__(self) -> None:
        """Live until the engine ends or a signal comes. Raises EngineError where the engine fails."""
        Agent(RunDirectory(self.run_path), self.worker_id).run()

    def checkpoint(self, *_: Any, **__: Any) -> Any:
        """submitit asks this after the walltime signal: the same again. It is called in no other program."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)

    def argv(self) -> Sequence[str]:
        """The same as a command line, for a machine without Slurm."""
        return [sys.executable, "-m", "slurminfer.nodes.agent", str(self.run_path), self.worker_id]


class Agent:
    """One task of a worker's job."""

    def __init__(self, run: RunDirectory, worker_id: str) -> None:
        self._run, self._worker_id = run, worker_id
        self._spec = run.read_spec()
        self._pool = self._spec.pool_of(worker_id)
        self._adapter = ADAPTERS[self._pool.engine]
        self._place = Place.here(self._pool.time_s)
        self._signals = Signals()
        self._record = self._first_record()

    def run(self) -> None:
        """The whole life. Raises EngineError where the engine fails; requeues where the walltime ends it."""
        self._signals.listen()
        if self._place.local:
            numa.settle(self._spec, self._worker_id)
        private = Path(tempfile.mkdtemp(prefix="slurminfer-"))
        try:
            if self._place.rank == 0:
                self._lead(private)
            else:
                self._follow(private)
        finally:
            self._signals.restore()
            shutil.rmtree(private, ignore_errors=True)
        self._signals.hand_back()

    def _lead(self, private: Path) -> None:
        self._note(WorkerState.STARTING)
        try:
            engine, launch = self._start(private)
        except SlurminferError as error:
            self._note(WorkerState.GONE, reason=str(error))
            raise
        probe = self._probe(launch)
        try:
            self._watch(engine, probe)
            self._drain(engine, probe)
        except SlurminferError as error:
            self._note(WorkerState.GONE, reason=str(error))
            raise
        finally:
            probe.close()
            engine.stop(_ENGINE_STOP_GRACE_S)
        self._note(WorkerState.GONE, reason=self._signals.reason)

    def _follow(self, private: Path) -> None:
        launch = self._launch(private, port=0, rendezvous=self._await_rendezvous())
        engine = self._spawn(launch)
        # Only the head drains, and this rank's engine must compute with it to the end: the walltime signal is no reason
        # to leave. When the head's task ends, Slurm ends this one.
        while engine.exit_code() is None and not self._signals.terminated:
            self._signals.wait(_TICK_S)
        died = engine.exit_code() not in (None, 0) and not self._signals.reason
        engine.stop(_ENGINE_STOP_GRACE_S)
        if died:
            raise EngineError(f"rank {self._place.rank} on {self._place.host}: {engine.epitaph()}")

    def _start(self, private: Path) -> tuple[EngineProcess, EngineLaunch]:
        """Start the engine and wait for real tokens; another port where somebody was quicker to bind it."""
        for _ in range(_PORT_ATTEMPTS):
            launch = self._launch(private, free_port(self._place.address), self._publish_rendezvous())
            engine = self._spawn(launch)
            started = time.monotonic()
            self._note(WorkerState.STARTING, pid=engine.pid, url=launch.url)
            try:
                self._await_tokens(engine, launch)
            except EngineError:
                lost_the_port = engine.exit_code() is not None and not is_port_free(launch.address, launch.port)
                engine.stop(_ENGINE_STOP_GRACE_S)
                if not lost_the_port:
                    raise
                continue
            if not self._signals.reason:
                self._note(WorkerState.READY, load_s=round(time.monotonic() - started, 2))
            return engine, launch
        raise EngineError(f"no port could be bound on {self._place.host} in {_PORT_ATTEMPTS} attempts")

    def _await_tokens(self, engine: EngineProcess, launch: EngineLaunch) -> None:
        probe = self._probe(launch)
        deadline = time.monotonic() + self._pool.start_timeout_s
        tokens = 0
        try:
            while tokens < _TOKENS_TO_TRUST and not self._signals.reason:
                if engine.exit_code() is not None:
                    raise EngineError(engine.epitaph())
                if time.monotonic() > deadline:
                    key = f"start_timeout = {self._pool.start_timeout!r}"
                    raise EngineError(f"no token within {key} of pool '{self._pool.name}' (log: {engine.log})")
                tokens = tokens + 1 if probe.answers_health() and probe.generates() else 0
                if tokens == 0:
                    self._signals.wait(_TICK_S)
        finally:
            probe.close()

    def _watch(self, engine: EngineProcess, probe: EngineProbe) -> None:
        """Until a signal says stop. Raises EngineError where the engine dies or stays silent."""
        misses = 0
        while not self._signals.reason:
            if engine.exit_code() is not None:
                raise EngineError(engine.epitaph())
            misses = 0 if probe.answers_health() else misses + 1
            if misses == _HEALTH_MISSES_TO_CONDEMN:
                raise EngineError(f"engine has not answered /health {misses} times in a row (log: {engine.log})")
            self._signals.wait(_TICK_S)

    def _drain(self, engine: EngineProcess, probe: EngineProbe) -> None:
        """Announce it, then let what is in flight finish, as long as there is time."""
        self._note(WorkerState.DRAINING, reason=self._signals.reason)
        now = time.monotonic()
        grace = _TERMINATE_GRACE_S if self._signals.terminated else self._pool.drain_seconds * 0.8
        deadline, earliest = now + grace, now + _ROUTER_NOTICES_S
        while time.monotonic() < deadline and engine.exit_code() is None:
            if time.monotonic() > earliest and probe.in_flight() == 0:
                return
            self._signals.wait(_TICK_S)

    def _launch(self, private: Path, port: int, rendezvous: str | None) -> EngineLaunch:
        return EngineLaunch(
            model=self._spec.model,
            pool=self._pool,
            address=self._place.address,
            port=port,
            key=self._run.key(),
            private=private,
            threads=min(self._pool.cpus_per_task, allowed_cpus().cores),
            rank=self._place.rank,
            rendezvous=rendezvous,
            speculative=self._spec.speculative,
        )

    def _probe(self, launch: EngineLaunch) -> EngineProbe:
        return EngineProbe(launch.url, launch.key, self._spec.model.served_name, self._adapter.in_flight_metrics)

    def _spawn(self, launch: EngineLaunch) -> EngineProcess:
        log = self._run.logs_of(self._worker_id) / f"engine.{self._place.epoch}.{self._place.rank}.log"
        argv = self._adapter.argv(launch)
        advice = numa.advice(self._pool, launch.threads, allowed_cpus())
        if advice:
            print(advice, flush=True)
        print(f"starting on {self._place.host}: {' '.join(argv)}", flush=True)
        return EngineProcess(argv, self._adapter.env(launch), log)

    def _publish_rendezvous(self) -> str | None:
        if self._pool.nodes == 1:
            return None
        address = f"{self._place.address}:{free_port(self._place.address)}"
        self._run.write_rendezvous(self._worker_id, self._place.epoch, address)
        return address

    def _await_rendezvous(self) -> str:
        deadline = time.monotonic() + self._pool.start_timeout_s
        while time.monotonic() < deadline and not self._signals.reason:
            address = self._run.read_rendezvous(self._worker_id, self._place.epoch)
            if address:
                return address
            self._signals.wait(_TICK_S)
        raise EngineError(f"rank {self._place.rank} on {self._place.host}: the head has not said where to meet")

    def _first_record(self) -> WorkerRecord:
        return WorkerRecord(
            id=self._worker_id,
            pool=self._pool.name,
            engine=self._pool.engine,
            model=self._spec.model.served_name,
            state=WorkerState.STARTING,
            host=self._place.host,
            job=self._place.job,
            epoch=self._place.epoch,
            pid=os.getpid(),
            updated_at=time.time(),
            capacity=self._pool.max_running_requests or self._adapter.default_capacity,
            ends_at=self._place.ends_at,
        )

    def _note(self, state: WorkerState, **changes: Any) -> None:
        if state is not self._record.state:
            print(f"{time.strftime('%H:%M:%S')} {state} {changes.get('reason', '')}".rstrip(), flush=True)
        self._record = msgspec.structs.replace(self._record, state=state, updated_at=time.time(), **changes)
        self._run.write_worker(self._record)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m slurminfer.nodes.agent", description="Run one worker here.")
    parser.add_argument("run", type=Path, help="run directory of the deployment")
    parser.add_argument("worker", help="id of the worker")
    given = parser.parse_args()
    try:
        WorkerEntry(given.run, given.worker)()
    except SlurminferError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
