"""One task of a worker's job: what the agents of all its nodes have in common."""

import time
from pathlib import Path

from ...core.cpus import allowed_cpus
from ...core.records import NodeRecord, WorkerState
from ...core.rundir import RunDirectory
from ..engines.launch import EngineLaunch
from ..engines.table import ADAPTERS
from . import threads as numa
from .place import Place, interface_env
from .process import EngineProcess
from .signals import Signals


class Task:
    """Where it runs, what it has to run, and how the engine's process of its node is started."""

    def __init__(self, run: RunDirectory, worker_id: str) -> None:
        self.run, self.worker_id = run, worker_id
        self.spec = run.read_spec()
        self.pool = self.spec.pool_of(worker_id)
        self.adapter = ADAPTERS[self.pool.engine]
        self.place = Place.here(self.pool.time_s)
        self.signals = Signals()

    def launch(self, private: Path, port: int, rendezvous: str | None) -> EngineLaunch:
        return EngineLaunch(
            model=self.spec.model,
            pool=self.pool,
            address=self.place.address,
            port=port,
            key=self.run.key(),
            private=private,
            threads=min(self.pool.cpus_per_task, allowed_cpus().cores),
            node_rank=self.place.node_rank,
            rendezvous=rendezvous,
            speculative=self.spec.speculative,
        )

    def spawn(self, launch: EngineLaunch) -> EngineProcess:
        """Start the engine's process of this node. Raises EngineError if its interpreter is not there."""
        log = self.run.logs_of(self.worker_id) / f"engine.{self.place.epoch}.{self.place.node_rank}.log"
        argv = self.adapter.argv(launch)
        advice = numa.advice(self.pool, launch.threads, allowed_cpus())
        if advice:
            print(advice, flush=True)
        print(f"starting on {self.place.host}: {' '.join(argv)}", flush=True)
        of_ranks = interface_env(self.place.address) if launch.ranks > 1 else {}
        return EngineProcess(argv, {**of_ranks, **self.adapter.env(launch)}, log)

    def node_record(self, engine: EngineProcess, launch: EngineLaunch) -> NodeRecord:
        """How the engine's process of this node is now."""
        exit_code = engine.exit_code()
        return NodeRecord(
            node_rank=self.place.node_rank,
            host=self.place.host,
            pid=engine.pid,
            rendezvous=launch.rendezvous or "",
            updated_at=time.time(),
            exit_code=exit_code,
            reason="" if exit_code is None else engine.epitaph(),
        )

    def head_state(self) -> WorkerState:
        """What the head of this run of the job has said last."""
        record = self.run.read_worker(self.worker_id)
        return WorkerState.STARTING if record is None or record.epoch != self.place.epoch else record.state
