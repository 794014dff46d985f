"""The state of a worker, from its job, its record, and what the router says of it."""

import time
from collections.abc import Mapping

import msgspec

from ....core.errors import RunDirectoryError
from ....core.job import JobPhase, JobStatus
from ....core.logs.failures import Explanation
from ....core.records import SILENCE_S, JobRecord, WorkerRecord, WorkerState
from ....core.rundir import RunDirectory
from .causes import why_gone
from .state import WorkerView

_CLOCK_S = 5.0  # by which the clocks of a node and of Slurm's controller may differ


def worker_view(
    run: RunDirectory,
    job: JobRecord,
    status: JobStatus,
    found: WorkerRecord | RunDirectoryError | None,
    live: Mapping[str, Mapping[str, object]] | None,
) -> WorkerView:
    """One worker as a user sees it.

    Args:
        found: its record, or why that cannot be read; None where there is none.
        live: the router's own view of its workers by id; None where it does not answer.
    """
    seen = (live or {}).get(job.role, {})
    record = None if isinstance(found, RunDirectoryError) else _of_this_run(found, status)
    trouble = _trouble(record, seen, live is not None)
    state = _worker_state(status, record, trouble)
    if state == WorkerState.READY and seen.get("state") == WorkerState.STARTING:
        state = WorkerState.STARTING  # the router has still to read its record, or to ask it
    reason, ended = _reasons(run, job, status, record, state, trouble)
    in_flight = seen.get("in_flight")
    return WorkerView(
        id=job.role,
        job=job.id,
        state=state,
        scheduler=status.state,
        node=status.node or (record.host if record else ""),
        in_flight=in_flight if isinstance(in_flight, int) else None,
        load_s=record.load_s if record else None,
        stage_s=record.stage_s if record else None,
        seconds_left=_seconds_left(status, record),
        reason=str(found) if isinstance(found, RunDirectoryError) else reason,
        cause=ended.cause,
        advice=status.advice if state == "pending" else ended.advice,
        remark=record.remark if record else "",
        obstacle=status.obstacle if state == "pending" else "",
        starts_at=status.starts_at,
    )


def _reasons(
    run: RunDirectory, job: JobRecord, status: JobStatus, record: WorkerRecord | None, state: str, trouble: str
) -> tuple[str, Explanation]:
    """Why a worker is in its state, in the words of whoever knows it; and of one that is gone, what that means."""
    if state == "pending":
        return why_it_waits(status), Explanation()
    if state == WorkerState.GONE:
        has_worked = record is not None and record.load_s is not None
        return why_gone(run, job, status, record, has_worked=has_worked)
    return (trouble if state == "unreachable" else record.reason if record else ""), Explanation()


def _of_this_run(record: WorkerRecord | None, status: JobStatus) -> WorkerRecord | None:
    """The worker's record, where it is of the present run of its job: Slurm may have requeued the job since."""
    if record is None or status.phase is JobPhase.PENDING:
        return None
    is_older = status.started_at is not None and record.updated_at < status.started_at - _CLOCK_S
    return None if is_older else record


def _seconds_left(status: JobStatus, record: WorkerRecord | None) -> float | None:
    """Until the walltime limit: Slurm's, which may have been changed since the worker wrote its record."""
    slurms = status.ends_at if status.phase is JobPhase.RUNNING else None
    ends_at = slurms or (record.ends_at if record else None)
    return max(0.0, ends_at - time.time()) if ends_at else None


def date_time(at: float) -> str:
    """A Unix time for people, in this machine's time zone."""
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(at))


def why_it_waits(status: JobStatus) -> str:
    """Slurm's reason, what it means, and when Slurm expects to start the job."""
    if status.obstacle:
        return f"{status.reason}: cannot start, {status.obstacle}"
    if status.starts_at is None:
        return status.reason
    return f"{status.reason or 'waits'}: start expected at {date_time(status.starts_at)}"


def corrected(status: JobStatus, found: WorkerRecord | RunDirectoryError | None, looked_at: float) -> JobStatus:
    """The scheduler's word for a job; a heartbeat of the worker that is newer than it says that the job runs."""
    is_newer = isinstance(found, WorkerRecord) and found.updated_at > looked_at and found.state is not WorkerState.GONE
    if status.phase is JobPhase.PENDING and is_newer:
        return msgspec.structs.replace(status, phase=JobPhase.RUNNING, state="RUNNING", reason="")
    return status


def _trouble(record: WorkerRecord | None, seen: Mapping[str, object], router_answers: bool) -> str:
    """Why a worker that says it lives cannot be reached; empty if it can."""
    if router_answers:
        is_well = (
            seen.get("healthy", True)
            or (record is not None and record.state is not WorkerState.READY)
            or seen.get("state") == WorkerState.STARTING
        )
        return "" if is_well and seen.get("state") != "unreachable" else str(seen.get("reason") or "unhealthy")
    if record is None or record.state is WorkerState.GONE:
        return ""
    silent_s = time.time() - record.updated_at
    return f"no heartbeat for {silent_s:.0f} s" if silent_s > SILENCE_S else ""


def _worker_state(status: JobStatus, record: WorkerRecord | None, trouble: str) -> str:
    """The scheduler knows whether the job lives; only a living job's own word counts; the router may know better."""
    if status.phase is JobPhase.PENDING:
        return "pending"
    if status.phase is not JobPhase.RUNNING:
        return WorkerState.GONE
    if record is None:
        return WorkerState.STARTING
    return "unreachable" if trouble and record.state is not WorkerState.GONE else record.state
