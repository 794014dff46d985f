"""What the jobs of a deployment have used while a batch ran: hours and cost, by the receipt's own rules."""

import time
from collections.abc import Callable, Sequence

import msgspec

from ....core.records import ROUTER
from ....core.rundir import RunDirectory
from ....slurm.accounting import JobRun
from ...receipt.gather import gather
from ...receipt.ledger import JobUsage
from ...receipt.receipt import Found, Hours, receipt_of
from .history import Span, busy


class Consumption(msgspec.Struct, frozen=True, kw_only=True):
    """What all jobs of the deployment, the router's among them, have used in the batch's time, for whomever."""

    hours: Hours
    worker_hours: Hours  # without the router's
    cost: float | None = None  # None: no price is known
    currency: str | None = None


def consumed(run: RunDirectory, spans: Sequence[Span], clock: Callable[[], float] = time.time) -> Consumption | None:
    """What was used in the time of these spans; None where nothing is known. Raises as `gather`."""
    return consumption(gather(run, clock), busy(spans), clock())


def consumption(found: Found, times: Sequence[tuple[float, float]], now: float) -> Consumption | None:
    """The same from what was gathered. Pure."""
    jobs = [part for usage in found.jobs if (part := _job_part(usage, times, now)) is not None]
    runs = {job: [_run_part(one, times, now) for one in ones] for job, ones in found.runs.items()}
    receipt = receipt_of(msgspec.structs.replace(found, jobs=jobs, runs=runs, usage={}, accounts={}))
    if not receipt.total.jobs:
        return None
    workers = sum((line.total for line in receipt.pools if line.pool != ROUTER), Hours())
    return Consumption(
        hours=receipt.total.total, worker_hours=workers, cost=receipt.total.cost, currency=receipt.currency
    )


def _job_part(usage: JobUsage, times: Sequence[tuple[float, float]], now: float) -> JobUsage | None:
    """A job with its time among these; None where it had none."""
    if usage.started_at is None:
        return usage if usage.ended_at is None or _overlap(usage.submitted_at, usage.ended_at, times) else None
    seconds = min(usage.running_s, _overlap(usage.started_at, usage.ended_at or now, times))
    if usage.ended_at is not None and not seconds:
        return None
    return msgspec.structs.replace(
        usage, running_s=seconds, loading_s=0.0, idle_s=0.0, serving_s=0.0, overlap_s=0.0, predicted_s=None
    )


def _run_part(run: JobRun, times: Sequence[tuple[float, float]], now: float) -> JobRun:
    if run.started_at is None:
        return run
    ended = run.started_at + run.elapsed_s if run.elapsed_s else run.ended_at or now
    return msgspec.structs.replace(run, elapsed_s=_overlap(run.started_at, ended, times), energy_j=None)


def _overlap(begin: float, end: float, times: Sequence[tuple[float, float]]) -> float:
    return sum(max(0.0, min(end, high) - max(begin, low)) for low, high in times)
