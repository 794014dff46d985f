"""What the scheduler says of the workers' jobs, for the status page of the router, which asks no scheduler."""

from collections.abc import Mapping
from contextlib import suppress

from ...core.errors import RunDirectoryError
from ...core.job import JobPhase, JobStatus
from ...core.records import QueuedJob, QueueRecord
from ...core.rundir import RunDirectory


def report(run: RunDirectory, said: Mapping[str, QueuedJob], at: float) -> None:
    """Leave what the scheduler said at that Unix time, by worker's id, where the file can be written."""
    with suppress(RunDirectoryError):
        run.write_queue(QueueRecord(written_at=at, workers=dict(said)))


def queued_job(status: JobStatus) -> QueuedJob:
    """A job's status as the router's pages need it."""
    return QueuedJob(
        phase=status.phase,
        state=status.state,
        reason=status.reason,
        starts_at=status.starts_at,
        ends_at=status.ends_at if status.phase is JobPhase.RUNNING else None,
        obstacle=status.obstacle,
    )
