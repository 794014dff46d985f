"""One task of a worker's job: what the agents of all its nodes have in common."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from ...core.errors import RunDirectoryError
from ...core.keys import new_key
from ...core.machine.cpus import allowed_cpus
from ...core.machine.nvidia import VISIBLE
from ...core.net.address import interface_env, node_address
from ...core.processes.python import module_argv
from ...core.records import NodeRecord, RendezvousRecord, WorkerState
from ...core.rundir import PROCESS_LOG, RunDirectory
from ...core.slurm_env import JobPlace
from ...core.spec.pool import PoolSpec
from ...core.workers.ids import role_of
from ..containers.contain import Command, contain
from ..energy.meter import EnergyMeter
from ..engines.check import check_engines
from ..engines.launch import EngineLaunch
from ..engines.table import adapter_of
from ..staging.caches import node_caches
from ..staging.stage import Pause, Weights, staged
from .hooks import Hooks
from .placement import threads
from .placement.gpu_order import gpu_order
from .process import EngineProcess
from .redact import Redactor, secret_values
from .signals import Signals
from .standby import Standby

SOCKET_NAME = "engine.sock"


class Task:
    """Where it runs, what it has to run, and how the engine's process of its node is started."""

    def __init__(
        self,
        run: RunDirectory,
        worker_id: str,
        slot: int,
        hooks: Hooks,
        share: PoolSpec | None = None,
        place: JobPlace | None = None,
    ) -> None:
        """Read what there is to do. Raises SpecError.

        Args:
            run: of the deployment.
            worker_id: POOL-SERIAL, or that of one of several workers of a job.
            slot: see `DeploymentSpec.slots`.
            hooks: of whoever has submitted the job.
            share: the pool as one of several workers of a job has it; its CPUs and GPUs are set already.
            place: of the job, where this process is not its first.
        """
        self.run, self.worker_id, self.slot, self.hooks = run, worker_id, slot, hooks
        self.standby = Standby(run, module_argv(*hooks.controller) if hooks.controller else (), slot)
        self.spec = run.read_spec()
        check_engines(self.spec)
        self.pool, self.is_share = share or self.spec.pool_of(worker_id), share is not None
        self.model, self.speculative = self.spec.model_of(self.pool), self.spec.speculative
        self.adapter = adapter_of(self.pool.engine)
        self.place, self.address = place or place_of(self.pool.time_s, hooks), node_address()
        self.signals = Signals()
        self.remark = ""  # what the user should know of where it runs
        self.energy: EnergyMeter | None = None  # None: not begun

    @contextmanager
    def staged(self, pause: Pause) -> Iterator[Weights]:
        """Have the weights on this node's disk, where the pool wants that, for what is launched meanwhile.

        Raises EngineError where the pool's `stage_weights` cannot be obeyed here.
        """
        with staged(self.pool, Weights(model=self.model, speculative=self.speculative), pause) as weights:
            self.model, self.speculative = weights.model, weights.speculative
            yield weights

    def launch(self, private: Path, rendezvous: RendezvousRecord | None) -> EngineLaunch:
        """What the engine's process of this node is told; each launch has a key of its own.

        Args:
            private: folder that only the user can enter, with room for a socket.
            rendezvous: where the ranks of all nodes meet; None where there is one rank.
        """
        rank_cpus = self._place_beside_gpus() if self.pool.gpus_per_node else None
        count = threads.engine_threads(self.pool, allowed_cpus())
        if rank_cpus is None:
            is_shared = (
                self.place.local and len(self.spec.slots()) > 1
            )  # by workers of which none knows the others' CPUs
            rank_cpus = () if is_shared else threads.rank_cpus(self.pool, count)
        return EngineLaunch(
            model=self.model,
            pool=self.pool,
            address=self.address,
            socket=private / SOCKET_NAME,
            key=new_key(),
            private=private,
            threads=count,
            rank_cpus=rank_cpus,
            node_rank=self.place.node_rank,
            rendezvous=rendezvous.address if rendezvous else None,
            rank_secret=rendezvous.secret if rendezvous else "",
            speculative=self.speculative,
            caches=node_caches(self.pool),
        )

    def _place_beside_gpus(self) -> tuple[tuple[int, ...], ...]:
        """Give the ranks their GPUs in order, and keep what starts from here to the CPUs beside them: of each rank."""
        found = gpu_order(self.pool, os.environ)
        if found.visible is not None:
            os.environ[VISIBLE] = found.visible
            print(f"GPUs in the order of their links: {VISIBLE}={found.visible}", flush=True)
        if found.rank_cpus:
            os.sched_setaffinity(0, frozenset().union(*found.rank_cpus))
            threads.keep_memory_near()
        if found.remark:
            print(found.remark, flush=True)
        self.remark = found.remark
        return found.rank_cpus

    def spawn(self, launch: EngineLaunch) -> EngineProcess:
        """Start the engine's process of this node. Raises EngineError if its interpreter is not there."""
        launch.socket.unlink(missing_ok=True)  # of a launch before
        log = self.run.logs_of(self.worker_id) / f"engine.{self.place.epoch}.{self.place.node_rank}.log"
        network = interface_env(self.address) if launch.ranks > 1 else {}
        caches = launch.caches.env if launch.caches else {}
        engine = Command(self.adapter.argv(launch), {**network, **caches, **self.adapter.env(launch)})
        command = contain(engine, launch)
        advice = threads.advice(self.pool, launch.threads, allowed_cpus())
        if advice:
            print(advice, flush=True)
        hidden = self._secrets(launch)
        print(Redactor(hidden).text(f"starting on {self.place.host}: {' '.join(command.argv)}"), flush=True)
        return EngineProcess(
            command.argv,
            command.env,
            log,
            self.adapter.log_format,
            secrets=hidden,
            after=command.after,
            has_shell_status=self.pool.container is not None,
        )

    def _secrets(self, launch: EngineLaunch) -> list[str]:
        """What no log may show: all keys, and what the environment has of the kind."""
        environ = {**os.environ, **self.pool.env}
        return [launch.key, launch.rank_secret, self.run.key(), *secret_values(environ)]

    def read_energy(self) -> None:
        """Begin to follow the energy of this node; once it is settled which GPUs are the worker's."""
        if self.energy is None:
            self.energy = EnergyMeter(self.pool)

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
            reason="" if exit_code is None else engine.exit_reason(),
            energy=self.energy.latest if self.energy is not None else None,
        )

    @property
    def log_name(self) -> str:
        """The log of this task in the worker's folder, as the launchers name it."""
        return PROCESS_LOG if self.place.local else f"{self.place.job}_0_log.out"

    def obey(self) -> None:
        """Do what the controller says, if it can be read: end for good, or let the job end without another epoch."""
        try:
            order = self.run.read_order(role_of(self.worker_id))
        except RunDirectoryError:
            return
        if order is None:
            return
        is_due = bool(self.signals.reason) or self.place.epoch > order.epoch
        if order.drain or (order.stays_away and is_due):
            self.signals.retire(order.reason)

    def head_state(self) -> WorkerState:
        """What the head of this run of the job has said last."""
        try:
            record = self.run.read_worker(self.worker_id)
        except RunDirectoryError:  # cannot be read now, which is no reason to end
            return WorkerState.STARTING
        return WorkerState.STARTING if record is None or record.epoch != self.place.epoch else record.state


def place_of(time_s: int, hooks: Hooks) -> JobPlace:
    """Where this is. The head asks the scheduler for the limit of the job, which may be shorter than `time_s`."""
    place = JobPlace.here(time_s)
    ends_at = hooks.ends_at() if place.node_rank == 0 and not place.local else None
    return place if ends_at is None else replace(place, ends_at=ends_at)
