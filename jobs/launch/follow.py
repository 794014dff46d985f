"""Waiting for the end of a job that does one thing."""

import time
from collections.abc import Callable
from pathlib import Path

from ...core.errors import SlurmError
from ...core.job import JobPhase, JobStatus, Launcher
from ...core.logs.text import root_cause, tail

_POLL_S = 2.0
# Slurm forgets a job for a moment when it goes back to the queue, and NFS shows a new file late.
_PATIENCE_S = 60.0


def until_ended(job_id: str, launcher: Launcher, on_look: Callable[[JobStatus], None]) -> JobStatus:
    """The last look at the job: it has ended, or nobody has known it for a minute. Raises SlurmError."""
    unknown_since: float | None = None
    while True:
        status = launcher.observe([job_id])[job_id]
        if status.phase in (JobPhase.DONE, JobPhase.FAILED):
            return status
        unknown_since = (unknown_since or time.monotonic()) if status.phase is JobPhase.UNKNOWN else None
        if unknown_since is not None and time.monotonic() - unknown_since > _PATIENCE_S:
            return status
        on_look(status)
        time.sleep(_POLL_S)


def no_result(status: JobStatus, folder: Path, cause: str | None = None) -> SlurmError:
    """Why a job has left none, by Slurm and by `cause`, else by the logs of its tasks in `folder`."""
    logs = sorted(folder.glob(f"{status.id}_*_log.out"))
    cause = cause or root_cause("\n".join(map(tail, logs))) or "its logs say nothing"
    words = " ".join(word for word in (status.state, f"({status.reason})" if status.reason else "") if word)
    return SlurmError(f"job {status.id} ended as {words} without a result: {cause}; logs in {folder}")
