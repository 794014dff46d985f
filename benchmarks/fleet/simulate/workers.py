"""Workers of a simulated deployment: their jobs wait, load, serve, fail, drain and go back to the queue."""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, field

from slurminfer.jobs.fleet.rules.desired import PoolPlan
from slurminfer.jobs.fleet.rules.observed import Stage

from .chance import MOST_WORKERS, Event, Fault
from .cluster import Cluster, Job
from .demand import Requests

REQUEUED_S = 30.0  # before a job that goes back to the queue may start again
PREEMPTED_S = 20.0  # to drain
REPAIR_S = 7200.0
_FAILS = 0.02  # of all starts


@dataclass(slots=True)
class Case:
    """One pool: what is asked of it, and by whom.

    Args:
        plan: as the controller knows it.
        nodes: of a worker.
        load_s: about so long a worker loads.
        fixed: workers of a fleet of fixed size.
        broken: from when to when none of its workers can start.
    """

    plan: PoolPlan
    requests: Requests
    nodes: int
    load_s: float
    fixed: int
    is_preemptible: bool = False
    broken: tuple[float, float] = (math.inf, math.inf)

    @property
    def longest_load_s(self) -> float:
        """No worker loads for longer."""
        return self.load_s * 1.3


@dataclass(slots=True, eq=False)
class Worker:
    """One worker, as it is."""

    id: str
    case: Case
    job: Job
    submitted_at: float
    load_s: float
    fails: bool
    replaces: str = ""
    stage: Stage = Stage.PENDING  # LEAVING: drains for good; RETURNING: drains, and goes back to the queue
    until: float = math.inf  # end of loading or draining
    ready_at: float = 0.0
    ready_s: float = 0.0
    fault: Fault | None = None  # HANG or SILENCE
    fault_at: float = 0.0
    is_told: bool = False  # to end
    stays_away: bool = False  # it has a successor
    due: float = 0.0  # when something happens to it by itself

    @property
    def serves(self) -> bool:
        """Whether it computes."""
        return self.stage is Stage.READY and self.fault is None


@dataclass(slots=True, eq=False)
class Fleet:
    """Workers of several pools on a cluster. Strategies say what is done when one ends.

    Args:
        drains: whether workers drain before the end of their walltime, and go back to the queue.
    """

    cluster: Cluster
    cases: Sequence[Case]
    seed: str
    drains: bool = True
    workers: dict[str, Worker] = field(default_factory=dict)
    used_s: dict[str, float] = field(default_factory=dict)  # GPU-seconds, by pool
    serials: dict[str, int] = field(default_factory=dict)
    ends: int = 0
    gaps: dict[str, int] = field(default_factory=dict)  # ends of the walltime without a ready successor, by why

    def submit(self, case: Case, now: float, limit_s: float, replaces: str = "", held: bool = False) -> Worker:
        """One more worker; `held`: its job is not to wait in the queue yet."""
        serial = self.serials.get(case.plan.name, 0)
        self.serials[case.plan.name] = serial + 1
        chance = random.Random(f"{self.seed} {case.plan.name} {serial}")
        load_s, fails = case.load_s * chance.uniform(0.8, 1.3), chance.random() < _FAILS
        job = Job(nodes=case.nodes, limit_s=limit_s, is_low=case.plan.is_backfill)
        worker = Worker(f"{case.plan.name}-{serial}", case, job, now, load_s, fails, replaces)
        self.workers[worker.id] = worker
        if not held:
            self.cluster.submit(job, now)
        return worker

    def of(self, case: Case) -> list[Worker]:
        """The workers of a pool."""
        return [worker for worker in self.workers.values() if worker.case is case]

    def tick(self, now: float, tick_s: float) -> None:
        """Let the workers live."""
        preempted, self.cluster.preempted = set(self.cluster.preempted), []
        for worker in [one for one in self.workers.values() if one.job in preempted]:
            self.end(worker, now, "preempted")
        for worker in list(self.workers.values()):
            if worker.job.started_at is None:
                continue
            name = worker.case.plan.name
            self.used_s[name] = self.used_s.get(name, 0.0) + worker.case.plan.units * tick_s
            if worker.stage is Stage.PENDING:
                self._start(worker)
            if now >= worker.due:
                self._live(worker, now)

    def strike(self, event: Event, now: float, *, is_backfill: bool = False) -> None:
        """Let a fault happen to the worker that it is drawn for, of backfill pools or of the others."""
        running = [
            worker
            for worker in self.workers.values()
            if worker.job.started_at is not None and worker.case.plan.is_backfill == is_backfill
        ]
        index = int(event.draw * MOST_WORKERS)
        if index >= len(running):
            return
        worker = running[index]
        if event.fault is Fault.PREEMPT:
            if worker.case.is_preemptible and worker.stage in (Stage.READY, Stage.STARTING):
                self._drain(worker, now, PREEMPTED_S)
        elif event.fault is Fault.CRASH:
            self.end(worker, now, "crash")
        elif event.fault is Fault.NODE:
            self.requeue(worker, now)
            self.cluster.lose_node(now + REPAIR_S)
        elif worker.stage is Stage.READY and worker.fault is None:
            worker.fault, worker.fault_at = event.fault, now

    def tell(self, worker: Worker, now: float) -> None:
        """Tell a worker to end."""
        worker.is_told = True
        if worker.stage is Stage.RETURNING:
            worker.stage = Stage.LEAVING
        elif worker.stage in (Stage.READY, Stage.STARTING) and worker.fault is not Fault.SILENCE:
            self._drain(worker, now, worker.case.plan.drain_s)

    def cancel(self, worker: Worker, now: float) -> None:
        """End its job at once."""
        worker.is_told = True
        self.end(worker, now, "cancelled")

    def end(self, worker: Worker, now: float, why: str) -> None:
        """Its job is over."""
        self._stop_serving(worker, now)
        self.cluster.end(worker.job)
        del self.workers[worker.id]
        self.ends += 1
        self.ended(worker, now, why)

    def requeue(self, worker: Worker, now: float) -> None:
        """Its job goes back to the queue."""
        if worker.is_told or worker.stays_away or worker.case.plan.is_backfill:
            is_drained = worker.stage in (Stage.RETURNING, Stage.LEAVING)
            self.end(worker, now, "told" if worker.is_told else "walltime" if is_drained else "node")
            return
        self._stop_serving(worker, now)
        self.cluster.end(worker.job)
        worker.job = Job(nodes=worker.job.nodes, limit_s=worker.job.limit_s)
        self.cluster.submit(worker.job, now + REQUEUED_S)
        worker.stage, worker.fault = Stage.PENDING, None

    def ended(self, worker: Worker, now: float, why: str) -> None:
        """What a strategy does when a worker's job is over; nothing by default."""

    def _start(self, worker: Worker) -> None:
        began = worker.job.started_at or 0.0
        worker.stage, worker.until = Stage.STARTING, began + worker.load_s
        worker.due = worker.until

    def _live(self, worker: Worker, now: float) -> None:
        case, job = worker.case, worker.job
        signal_at = job.ends_at - (case.plan.drain_s if self.drains else 0.0)
        if worker.is_told and worker.stage is Stage.STARTING:
            self.end(worker, now, "told")
        elif worker.stage is Stage.STARTING and worker.until <= min(now, signal_at):
            begin, end = case.broken
            if worker.fails or begin <= now < end:
                self.end(worker, now, "failed")
                return
            worker.stage, worker.ready_at, worker.due = Stage.READY, now, signal_at
        elif worker.stage in (Stage.RETURNING, Stage.LEAVING):
            self.requeue(worker, now) if worker.stage is Stage.RETURNING else self.end(worker, now, "told")
        elif now >= signal_at:
            self._reach_walltime(worker, now)

    def _reach_walltime(self, worker: Worker, now: float) -> None:
        self._note_gap(worker)
        if worker.fault is Fault.SILENCE:
            self.end(worker, now, "walltime")
        elif self.drains:
            self._drain(worker, now, worker.case.plan.drain_s)
        else:
            if worker.serves:
                worker.case.requests.lose(sum(one.serves for one in self.of(worker.case)))
            self.end(worker, now, "walltime")

    def _note_gap(self, worker: Worker) -> None:
        """Count that a worker has reached the end of its walltime, by where its successor is."""
        successor = next((one for one in self.workers.values() if one.replaces == worker.id and not one.is_told), None)
        where = "none" if successor is None else str(successor.stage)
        self.gaps[where] = self.gaps.get(where, 0) + 1

    def _drain(self, worker: Worker, now: float, longest_s: float) -> None:
        self._stop_serving(worker, now)
        is_leaving = worker.is_told or worker.stays_away
        worker.stage = Stage.LEAVING if is_leaving else Stage.RETURNING
        worker.due = now + min(longest_s, worker.case.requests.takes_s)

    def _stop_serving(self, worker: Worker, now: float) -> None:
        if worker.stage is Stage.READY:
            worker.ready_s += now - worker.ready_at
