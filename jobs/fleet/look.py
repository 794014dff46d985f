"""One look at a fleet: the scheduler, the run directory and the router, each read once.

Times that other machines have written are not compared with this one's clock. What matters is when something changed as
seen from here; only walltime limits are taken as Slurm says them.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from ...core.errors import RunDirectoryError
from ...core.job import JobPhase, JobStatus
from ...core.records import (
    ROUTER,
    SILENCE_S,
    DeploymentRecord,
    JobRecord,
    OrderRecord,
    RouterRecord,
    WorkerRecord,
    WorkerState,
)
from ...core.workers.ids import pool_name
from ..launch.jobs import observe_jobs
from .rules.observed import Demand, Member, Stage

Observe = Callable[[Sequence[str]], Mapping[str, JobStatus]]

# Slurm forgets a job for a moment when it goes back to the queue, and a new one may not be known at once.
UNKNOWN_S = 120.0


class Seen(msgspec.Struct):
    """What is remembered of a worker from one look to the next; monotonic seconds, where nothing else is said."""

    stage: Stage
    since: float  # Unix time
    heard: float = 0.0  # `updated_at` of its record
    heard_at: float = 0.0
    unknown_at: float | None = None
    unwell_at: float | None = None  # Unix time
    ready_s: float = 0.0  # for so long it was ready in earlier epochs
    has_run: bool = False
    was_ready: bool = False
    load_s: float | None = None
    waited_s: float | None = None


class Ending(msgspec.Struct, frozen=True):
    """A job that is over: its record, how it ended, and what was seen of it."""

    job: JobRecord
    status: JobStatus
    seen: Seen
    ready_s: float


class Look(msgspec.Struct, frozen=True):
    """What one look has found."""

    members: tuple[Member, ...]
    endings: tuple[Ending, ...]
    statuses: Mapping[str, JobStatus]  # by job


class Looker:
    """Follows the workers of a deployment.

    Args:
        observe: asks the scheduler for jobs.
        clock: Unix seconds.
        monotonic: seconds.
    """

    def __init__(
        self,
        observe: Observe,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._observe, self._clock, self._monotonic = observe, clock, monotonic
        self.seen: dict[str, Seen] = {}  # by job
        self.statuses: dict[str, JobStatus] = {}  # by role, as of the last look

    def forget(self) -> None:
        """Begin anew: what was seen before is too old."""
        self.seen, self.statuses = {}, {}

    def move_times(self, by: float) -> None:
        """Move the times that are remembered by so many seconds, because the clock was set."""
        for seen in self.seen.values():
            seen.since += by
            seen.unwell_at = None if seen.unwell_at is None else seen.unwell_at + by

    def look(
        self,
        deployment: DeploymentRecord,
        records: Mapping[str, WorkerRecord | RunDirectoryError],
        router: RouterRecord | None,
        live: Mapping[str, Mapping[str, Any]] | None,
        orders: Mapping[str, OrderRecord],
    ) -> Look:
        """What is true now. Raises SlurmError where the scheduler does not answer.

        Args:
            deployment: its jobs.
            records: of workers, by their ids.
            router: the record of the router that clients use.
            live: the router's own view of its workers, by their ids; None where it does not answer.
            orders: what workers were told, by their ids.
        """
        statuses = observe_jobs(self._observe, deployment.jobs)
        self.statuses = {job.role: statuses[job.id] for job in deployment.jobs}
        members: list[Member] = []
        endings: list[Ending] = []
        for job in deployment.jobs:
            status = statuses[job.id]
            if job.role == ROUTER:
                stage, record = _router_stage(job, status, router, self.seen.get(job.id)), None
            else:
                found = records.get(job.role)
                record = found if isinstance(found, WorkerRecord) and is_of(job.id, found.job) else None
                stage = _stage(status, record, orders.get(job.role))
            seen = self._follow(job, stage, record)
            seen.has_run = seen.has_run or _has_run(status)
            if self._is_over(status, seen):
                endings.append(Ending(job, status, seen, self._ready_s(seen)))
                del self.seen[job.id]
            else:
                members.append(self._member(job, status, stage, seen, record, (live or {}).get(job.role)))
        return Look(tuple(members), tuple(endings), statuses)

    def _follow(self, job: JobRecord, stage: Stage, record: WorkerRecord | None) -> Seen:
        now = self._clock()
        seen = self.seen.get(job.id)
        if seen is None:
            since = job.submitted_at if stage is Stage.PENDING and job.submitted_at else now
            seen = self.seen[job.id] = Seen(stage, since, heard_at=self._monotonic(), was_ready=stage is Stage.READY)
        elif seen.stage is not stage:
            self._advance(seen, stage, now)
        if record is not None and record.updated_at != seen.heard:
            seen.heard, seen.heard_at = record.updated_at, self._monotonic()
        return seen

    def _advance(self, seen: Seen, stage: Stage, now: float) -> None:
        if seen.stage is Stage.READY:
            seen.ready_s += now - seen.since
        if seen.stage is Stage.PENDING:
            seen.waited_s = now - seen.since
        if stage is Stage.READY:
            seen.was_ready = True
            if seen.stage is Stage.STARTING:
                seen.load_s = now - seen.since
        seen.stage, seen.since = stage, now

    def _is_over(self, status: JobStatus, seen: Seen) -> bool:
        if status.phase is not JobPhase.UNKNOWN:
            seen.unknown_at = None
            return not status.phase.is_living
        seen.unknown_at = self._monotonic() if seen.unknown_at is None else seen.unknown_at
        return self._monotonic() - seen.unknown_at >= UNKNOWN_S

    def _ready_s(self, seen: Seen) -> float:
        return seen.ready_s + (self._clock() - seen.since if seen.stage is Stage.READY else 0.0)

    def _member(
        self,
        job: JobRecord,
        status: JobStatus,
        stage: Stage,
        seen: Seen,
        record: WorkerRecord | None,
        live: Mapping[str, Any] | None,
    ) -> Member:
        ends_at = status.ends_at or (record.ends_at if record is not None else None)
        in_flight = (live or {}).get("in_flight")
        return Member(
            id=member_id(job),
            pool=pool_of(job),
            job=job.id,
            slot=job.slot,
            stage=stage,
            since=seen.since,
            submitted_at=job.submitted_at,
            ends_at=ends_at if stage is not Stage.PENDING else None,
            limit_s=status.limit_s,
            obstacle=status.obstacle,
            replaces=job.replaces,
            capacity=(record.capacity if record is not None else None) or 1,
            in_flight=in_flight if isinstance(in_flight, int) else 0,
            silent_since=self._silent_since(stage, seen, record),
            hung_since=self._hung_since(stage, seen, live),
        )

    def _silent_since(self, stage: Stage, seen: Seen, record: WorkerRecord | None) -> float | None:
        """Unix time, since when a worker that has a record has not written it."""
        silent_s = self._monotonic() - seen.heard_at
        if record is None or stage is Stage.PENDING or silent_s < SILENCE_S:
            return None
        return self._clock() - silent_s

    def _hung_since(self, stage: Stage, seen: Seen, live: Mapping[str, Any] | None) -> float | None:
        """Unix time, since when the router gets no token from a worker that calls itself ready."""
        if live is None:  # nothing is known
            return None
        is_unwell = stage is Stage.READY and live.get("state") == "ready" and live.get("healthy") is False
        seen.unwell_at = (self._clock() if seen.unwell_at is None else seen.unwell_at) if is_unwell else None
        return seen.unwell_at


def pool_of(job: JobRecord) -> str:
    """The pool of a job: that of the worker, or ROUTER."""
    return ROUTER if job.role == ROUTER else pool_name(job.role)


def is_of(job_id: str, recorded: str) -> bool:
    """Whether a record is of that job: without Slurm, a record has the pid that the job's id begins with."""
    return job_id.partition("@")[0] == recorded


def member_id(job: JobRecord) -> str:
    """The worker's id; of a router, of which there are two while one takes over, one made of its job."""
    return f"{ROUTER}-{job.id}" if job.role == ROUTER else job.role


def demand_of(load: Mapping[str, Any] | None) -> Mapping[str, Demand] | None:
    """What the router's page /load says; None where that is no such thing."""
    try:
        return None if load is None else msgspec.convert(load["pools"], dict[str, Demand])
    except (KeyError, TypeError, msgspec.ValidationError):
        return None


def _has_run(status: JobStatus) -> bool:
    """Whether the job runs, or has; one that was cancelled while it waited has begun when it ended, says Slurm."""
    has_times = status.started_at is not None and status.ends_at is not None
    return status.phase is JobPhase.RUNNING or (has_times and status.started_at != status.ends_at)


def _stage(status: JobStatus, record: WorkerRecord | None, order: OrderRecord | None) -> Stage:
    is_draining = record is not None and record.state in (WorkerState.DRAINING, WorkerState.GONE)
    if order is not None and (order.drain or (order.stays_away and is_draining)):
        return Stage.LEAVING
    if status.phase is JobPhase.PENDING:
        return Stage.PENDING
    if is_draining:
        return Stage.RETURNING
    return Stage.READY if record is not None and record.state is WorkerState.READY else Stage.STARTING


def _router_stage(job: JobRecord, status: JobStatus, router: RouterRecord | None, seen: Seen | None) -> Stage:
    if status.phase is JobPhase.PENDING:
        return Stage.PENDING
    is_its = router is not None and is_of(job.id, router.job)
    if is_its and router is not None and router.url:
        return Stage.READY
    has_announced = seen is not None and seen.was_ready and seen.stage is not Stage.PENDING
    return Stage.LEAVING if has_announced and router is not None and not is_its else Stage.STARTING
