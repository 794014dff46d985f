"""Why a worker's job has ended: by the controller's own order, by the scheduler, or by a fault."""

import msgspec

from ...core.errors import RunDirectoryError
from ...core.job import JobPhase
from ...core.records import ROUTER, EndedWorker, OrderRecord, WorkerRecord
from ...core.rundir import RunDirectory
from ..serve.status.causes import why_gone
from .journal import LONGEST_TEXT
from .look import Ending, is_of, pool_of
from .rules.harvest import STARTS_WITHIN_S

# The scheduler's words for jobs that have not ended by their own fault.
_BY_SCHEDULER = ("PREEMPTED", "NODE_FAIL", "BOOT_FAIL", "CANCELLED", "DEADLINE", "REVOKED", "UNKNOWN")


def ended_worker(
    run: RunDirectory,
    ending: Ending,
    order: OrderRecord | None,
    found: WorkerRecord | RunDirectoryError | None,
    at: float,
) -> EndedWorker:
    """What is remembered of a worker, or a router, whose job is over.

    Args:
        run: of the deployment.
        ending: its job.
        order: what the controller had told it, if anything.
        found: what its agent has left.
        at: when that was seen, Unix time.
    """
    ended = EndedWorker(
        id=ending.job.role,
        pool=pool_of(ending.job),
        job=ending.job.id,
        at=at,
        submitted_at=ending.job.submitted_at,
        ready_s=round(ending.ready_s, 1),
        by_scheduler=_is_by_scheduler(ending),
        has_missed=_has_missed(ending, at),
    )
    if order is not None and (order.drain or order.stays_away):
        return msgspec.structs.replace(ended, is_wanted=True, cause=order.reason)
    if ended.pool == ROUTER and ending.status.phase is JobPhase.DONE:  # it ends by itself when it is not asked any more
        return msgspec.structs.replace(ended, is_wanted=True, cause="another router has taken over")
    record = found if isinstance(found, WorkerRecord) and is_of(ending.job.id, found.job) else None
    has_worked = ending.seen.was_ready
    reason, known = why_gone(run, ending.job, ending.status, record, has_worked=has_worked)
    return msgspec.structs.replace(
        ended,
        was_cut=_was_cut(ending),
        cause=": ".join(part for part in (known.cause, reason) if part)[:LONGEST_TEXT],
        advice=known.advice,
        is_final=bool(known.cause) and not known.may_pass and not has_worked,
    )


def _was_cut(ending: Ending) -> bool:
    """Whether a worker of a backfill pool did not come to its limit, at which it drains, or at worst is killed."""
    is_at_limit = ending.status.phase is JobPhase.DONE or ending.status.state == "TIMEOUT"
    return ending.job.predicted_s is not None and not is_at_limit


def _has_missed(ending: Ending, at: float) -> bool:
    """Whether the job was to start at once, and did not for so long that it was cancelled."""
    is_old = at - ending.job.submitted_at >= STARTS_WITHIN_S
    return ending.job.predicted_s is not None and not ending.seen.has_run and is_old


def _is_by_scheduler(ending: Ending) -> bool:
    """Whether it was no fault of the worker's own. One that never served in all of its time would not the next time."""
    status, has_served = ending.status, ending.ready_s > 0
    if ending.job.predicted_s is not None and status.phase is JobPhase.DONE and has_served:
        return True  # of a backfill pool: at its limit it drains, and does not go back to the queue
    return status.state in _BY_SCHEDULER or (status.state == "TIMEOUT" and has_served)
