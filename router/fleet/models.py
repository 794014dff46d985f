"""Which models the deployment has, and whether they can be asked: live, starting, queued, asleep or offline."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from ...core.job import JobPhase
from ...core.records import QueuedJob, WorkerState
from ...core.spec.deployment import DeploymentSpec
from ...core.workers.ids import pool_name, role_of
from ..control.messages import Outlook
from .queue import FRESH_S, Queue
from .worker import Worker

LIVE, STARTING, QUEUED, ASLEEP, OFFLINE = "live", "starting", "queued", "asleep", "offline"
_UNASKED = f"Slurm has not been asked for it in the last {FRESH_S / 60:.0f} minutes"


@dataclass(frozen=True)
class ModelState:
    """One model. Times are Unix seconds."""

    name: str
    state: str
    workers: Mapping[str, int] = field(default_factory=dict)  # how many are live, starting, queued and offline
    ready_at: float | None = None  # of one that is starting: as long as its pool's last worker took
    starts_at: float | None = None  # of one that is queued: when the scheduler expects to start its first job
    reason: str = ""  # why it is queued or offline
    obstacle: str = ""  # of one that is queued: why none of its jobs starts as it is, however long it waits
    may_come: bool = False  # without a worker, requests wait: the controller says that one comes


@dataclass(frozen=True)
class ExpectedWorker:
    """A worker that there is a job for, and no record yet."""

    id: str
    pool: str
    model: str
    state: str
    starts_at: float | None = None  # Unix time at which the scheduler expects to start its job
    reason: str = ""  # why it is queued or offline
    obstacle: str = ""  # why its job does not start as it is, however long it waits


@dataclass(frozen=True)
class _Standing:
    """One worker, there or to come."""

    state: str
    at: float | None = None
    reason: str = ""
    obstacle: str = ""


def model_states(
    spec: DeploymentSpec,
    workers: Sequence[Worker],
    queue: Queue,
    load_s: Mapping[str, float],
    outlooks: Mapping[str, Outlook],
    *,
    asleep: Collection[str],
    now: float,
    monotonic: float,
) -> list[ModelState]:
    """Every model that a pool of the spec has or a worker serves, by name.

    Args:
        spec: of the deployment.
        workers: those that have a record.
        queue: the deployment's jobs.
        load_s: by pool, seconds that its last worker took to start.
        outlooks: by pool.
        asleep: pools that have no worker because no request needs one.
        now: Unix time.
        monotonic: the same moment of the clock that workers' times are of.
    """
    pools: dict[str, list[str]] = {}
    for pool in spec.pool:
        pools.setdefault(spec.model_of(pool).served_name, []).append(pool.name)
    standings: dict[str, list[_Standing]] = {name: [] for name in pools}
    for worker in workers:
        found = _standing(worker, queue, load_s.get(worker.record.pool), now, monotonic)
        standings.setdefault(worker.record.model, []).append(found)
    for one in expected_workers(spec, workers, queue, now):
        standings[one.model].append(_Standing(one.state, one.starts_at, one.reason, one.obstacle))
    states = (_model(name, found) for name, found in sorted(standings.items()))
    return [_with_outlook(state, pools.get(state.name, ()), outlooks, asleep) for state in states]


def expected_workers(spec: DeploymentSpec, workers: Sequence[Worker], queue: Queue, now: float) -> list[ExpectedWorker]:
    """The workers that there are jobs for and that have no record, by id. `now` is Unix time."""
    models = {pool.name: spec.model_of(pool).served_name for pool in spec.pool}
    found = []
    for worker_id in sorted(queue.jobs - {role_of(worker.id) for worker in workers}):
        pool = pool_name(worker_id)
        if pool in models:
            standing = _to_come(worker_id, queue, now)
            found.append(
                ExpectedWorker(
                    worker_id, pool, models[pool], standing.state, standing.at, standing.reason, standing.obstacle
                )
            )
    return found


def requeued(worker: Worker, queue: Queue, now: float) -> QueuedJob | None:
    """The scheduler's word for a worker that has gone and whose job waits in the queue again; None for all others."""
    said = queue.of(worker.id, now)
    is_waiting = said is not None and said.phase is JobPhase.PENDING
    return said if worker.record.state is WorkerState.GONE and is_waiting else None


def _model(name: str, found: Sequence[_Standing]) -> ModelState:
    by_state = {state: [one for one in found if one.state == state] for state in (LIVE, STARTING, QUEUED, OFFLINE)}
    state = next((state for state, ones in by_state.items() if ones), OFFLINE)
    queued = by_state[QUEUED] if state == QUEUED else []
    can_start = [one for one in queued if not one.obstacle]
    shown = can_start or queued or by_state[state]
    return ModelState(
        name=name,
        state=state,
        workers={state: len(ones) for state, ones in by_state.items()},
        ready_at=_first(one.at for one in by_state[STARTING]) if state == STARTING else None,
        starts_at=_first(one.at for one in by_state[QUEUED]) if state == QUEUED else None,
        reason=next((one.reason for one in shown if one.reason), "") if state in (QUEUED, OFFLINE) else "",
        obstacle="" if can_start else next((one.obstacle for one in queued if one.obstacle), ""),
    )


def _with_outlook(
    model: ModelState, pools: Sequence[str], outlooks: Mapping[str, Outlook], asleep: Collection[str]
) -> ModelState:
    """The model, with what the controller says of its pools where it has no worker and no job."""
    may_come = any(outlooks[name].may_come for name in pools if name in outlooks)
    if model.state != OFFLINE:
        return replace(model, may_come=may_come)
    reason = next((outlooks[name].reason for name in pools if name in outlooks and outlooks[name].reason), model.reason)
    if not may_come:
        return replace(model, reason=reason)
    state = ASLEEP if any(name in asleep for name in pools) else QUEUED
    return replace(model, may_come=True, reason=reason, state=state)


def _standing(worker: Worker, queue: Queue, load_s: float | None, now: float, monotonic: float) -> _Standing:
    if worker.choosable:
        return _Standing(LIVE)
    if worker.standing == WorkerState.STARTING:
        left_s = None if load_s is None else max(0.0, load_s - (monotonic - worker.found_at))
        return _Standing(STARTING, None if left_s is None else now + left_s)
    waiting = requeued(worker, queue, now)
    return _Standing(OFFLINE, reason=worker.reason) if waiting is None else _waiting(waiting)


def _to_come(worker_id: str, queue: Queue, now: float) -> _Standing:
    said = queue.of(worker_id, now)
    if said is None:
        return _Standing(QUEUED, reason=_UNASKED)
    if said.phase is JobPhase.PENDING:
        return _waiting(said)
    if said.phase is JobPhase.RUNNING:
        return _Standing(STARTING)
    return _Standing(OFFLINE, reason=f"its job has ended: {said.state}")


def _waiting(job: QueuedJob) -> _Standing:
    return _Standing(QUEUED, job.starts_at, job.reason, job.obstacle)


def _first(times: Iterable[float | None]) -> float | None:
    return min((time for time in times if time is not None), default=None)
