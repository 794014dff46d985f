"""One task of a worker's job: what the agents of all its nodes have in common."""

import time
from pathlib import Path

from ...core.address import interface_env, node_address
from ...core.machine.cpus import allowed_cpus
from ...core.records import NodeRecord, WorkerState
from ...core.rundir import RunDirectory
from ...core.slurm_env import JobPlace
from ..engines.check import check_engines
from ..engines.launch import EngineLaunch
from ..engines.table import adapter_of
from . import threads
from .process import EngineProcess
from .signals import Signals


class Task:
    """Where it runs, what it has to run, and how the engine's process of its node is started."""

    def __init__(self, run: RunDirectory, worker_id: str, slot: int = 0) -> None:
        self.run, self.worker_id, self.slot = run, worker_id, slot
        self.spec = run.read_spec()
        check_engines(self.spec)
        self.pool = self.spec.pool_of(worker_id)
        self.model = self.spec.model_of(self.pool)
        self.adapter = adapter_of(self.pool.engine)
        self.place, self.address = JobPlace.here(self.pool.time_s), node_address()
        self.signals = Signals()

    def launch(self, private: Path, port: int, rendezvous: str | None) -> EngineLaunch:
        """What the engine's process of this node is told.

        Args:
            private: folder that only the user can read.
            port: of its HTTP server.
            rendezvous: HOST:PORT where the ranks of all nodes meet; None where there is one rank.
        """
        return EngineLaunch(
            model=self.model,
            pool=self.pool,
            address=self.address,
            port=port,
            key=self.run.key(),
            private=private,
            threads=threads.engine_threads(self.pool, allowed_cpus()),
            node_rank=self.place.node_rank,
            rendezvous=rendezvous,
            speculative=self.spec.speculative,
        )

    def spawn(self, launch: EngineLaunch) -> EngineProcess:
        """Start the engine's process of this node. Raises EngineError if its interpreter is not there."""
        log = self.run.logs_of(self.worker_id) / f"engine.{self.place.epoch}.{self.place.node_rank}.log"
        argv = self.adapter.argv(launch)
        advice = threads.advice(self.pool, launch.threads, allowed_cpus())
        if advice:
            print(advice, flush=True)
        print(f"starting on {self.place.host}: {' '.join(argv)}", flush=True)
        of_ranks = interface_env(self.address) if launch.ranks > 1 else {}
        return EngineProcess(argv, {**of_ranks, **self.adapter.env(launch)}, log, self.adapter.log_format)

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
