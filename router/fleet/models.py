"""Which models the deployment has, and whether they can be asked: live, starting, queued or offline."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from ...core.records import WorkerState
from ...core.spec import DeploymentSpec
from .queue import PENDING, Queue
from .worker import Worker

LIVE, STARTING, QUEUED, OFFLINE = "live", "starting", "queued", "offline"


@dataclass(frozen=True)
class ModelState:
    """One model. Times are Unix seconds."""

    name: str
    state: str
    workers: Mapping[str, int] = field(default_factory=dict)  # how many are live, starting, queued and offline
    ready_at: float | None = None  # of one that is starting: as long as its pool's last worker took
    starts_at: float | None = None  # of one that is queued: when the scheduler expects to start its first job
    reason: str = ""  # why it is queued or offline


@dataclass(frozen=True)
class ExpectedWorker:
    """A worker that there is a job for, and no record yet."""

    id: str
    pool: str
    model: str
    state: str
    starts_at: float | None = None  # Unix time at which the scheduler expects to start its job
    reason: str = ""  # why it is queued or offline


@dataclass(frozen=True)
class _Standing:
    """One worker, there or to come."""

    state: str
    at: float | None = None
    reason: str = ""


def model_states(
    spec: DeploymentSpec,
    workers: Sequence[Worker],
    queue: Queue,
    load_s: Mapping[str, float],
    *,
    now: float,
    monotonic: float,
) -> list[ModelState]:
    """Every model that a pool of the spec has or a worker serves, by name.

    Args:
        spec: of the deployment.
        workers: those that have a record.
        queue: the deployment's jobs.
        load_s: by pool, seconds that its last worker took to start.
        now: Unix time.
        monotonic: the same moment of the clock that workers' times are of.
    """
    standings: dict[str, list[_Standing]] = {spec.model_of(pool).served_name: [] for pool in spec.pool}
    for worker in workers:
        found = _standing(worker, queue, load_s.get(worker.record.pool), now, monotonic)
        standings.setdefault(worker.record.model, []).append(found)
    for one in expected_workers(spec, workers, queue, now):
        standings[one.model].append(_Standing(one.state, one.starts_at, one.reason))
    return [_model(name, found) for name, found in sorted(standings.items())]


def expected_workers(spec: DeploymentSpec, workers: Sequence[Worker], queue: Queue, now: float) -> list[ExpectedWorker]:
    """The workers that there are jobs for and that have no record, by id. `now` is Unix time."""
    models = {pool.name: spec.model_of(pool).served_name for pool in spec.pool}
    found = []
    for worker_id in sorted(queue.jobs - {worker.id for worker in workers}):
        pool = worker_id.rpartition("-")[0]
        if pool in models:
            standing = _to_come(worker_id, queue, now)
            found.append(ExpectedWorker(worker_id, pool, models[pool], standing.state, standing.at, standing.reason))
    return found


def _model(name: str, found: Sequence[_Standing]) -> ModelState:
    by_state = {state: [one for one in found if one.state == state] for state in (LIVE, STARTING, QUEUED, OFFLINE)}
    state = next((state for state, ones in by_state.items() if ones), OFFLINE)
    return ModelState(
        name=name,
        state=state,
        workers={state: len(ones) for state, ones in by_state.items()},
        ready_at=_first(one.at for one in by_state[STARTING]) if state == STARTING else None,
        starts_at=_first(one.at for one in by_state[QUEUED]) if state == QUEUED else None,
        reason=next((one.reason for one in by_state[state] if one.reason), "") if state in (QUEUED, OFFLINE) else "",
    )


def _standing(worker: Worker, queue: Queue, load_s: float | None, now: float, monotonic: float) -> _Standing:
    if worker.choosable:
        return _Standing(LIVE)
    if worker.standing == WorkerState.STARTING:
        left_s = None if load_s is None else max(0.0, load_s - (monotonic - worker.found_at))
        return _Standing(STARTING, None if left_s is None else now + left_s)
    said = queue.of(worker.id, now)
    if worker.record.state is WorkerState.GONE and said is not None and said.state == PENDING:
        return _Standing(QUEUED, said.starts_at, said.reason)  # its job has gone back to the queue
    return _Standing(OFFLINE, reason=worker.reason)


def _to_come(worker_id: str, queue: Queue, now: float) -> _Standing:
    said = queue.of(worker_id, now)
    if said is None or said.state == PENDING:
        return _Standing(QUEUED, said.starts_at if said else None, said.reason if said else "")
    return _Standing(STARTING) if said.state == "RUNNING" else _Standing(OFFLINE, reason=f"its job is {said.state}")


def _first(times: Iterable[float | None]) -> float | None:
    return min((time for time in times if time is not None), default=None)
