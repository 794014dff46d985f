"""The drivers' jobs as Slurm sees them now, and why those have failed that have."""

from collections.abc import Iterable

import msgspec

from ....core.errors import SlurmError
from ....core.job import JobPhase, JobStatus, Launcher
from ....core.logs.text import root_cause, tail
from ...launch.jobs import observe_jobs
from .folder import JobsFolder


class JobView(msgspec.Struct, frozen=True, kw_only=True):
    """One job of a driver."""

    id: str
    state: str  # Slurm's word, or UNKNOWN where nobody remembers the job, or Slurm does not answer
    node: str = ""
    reason: str = ""  # why it waits or has failed
    advice: str = ""  # while it waits: what to change so that it starts
    starts_at: float | None = None  # while it waits: when Slurm expects to start it, Unix time
    ends_at: float | None = None  # while it runs: its walltime limit, Unix time
    is_living: bool = False  # it waits or runs


def look_at_jobs(folder: JobsFolder, launcher: Launcher) -> list[JobView]:
    """The jobs of the latest `--submit`; none where there was none. Raises RunDirectoryError."""
    known = folder.read_jobs()
    if known is None:
        return []
    try:
        statuses = observe_jobs(launcher.observe, known.jobs)
    except SlurmError as error:
        return [JobView(id=id, state="UNKNOWN", reason=str(error)) for id in known.ids]
    return [_view(statuses[id], folder) for id in known.ids]


def lines(jobs: Iterable[JobView]) -> Iterable[str]:
    """One for each job, in words."""
    for job in jobs:
        where = f" on {job.node}" if job.node else ""
        why = f": {job.reason}" if job.reason else ""
        what = f". What to change: {job.advice}" if job.advice else ""
        yield f"Slurm job {job.id} {job.state}{where}{why}{what}"


def _view(status: JobStatus, folder: JobsFolder) -> JobView:
    reason = status.reason
    if status.phase is JobPhase.FAILED:
        reason = "; ".join(part for part in (status.reason, _cause(status.id, folder)) if part)
    return JobView(
        id=status.id,
        state=status.state,
        node=status.node,
        reason=reason,
        advice=status.advice,
        starts_at=status.starts_at,
        ends_at=status.ends_at if status.phase is JobPhase.RUNNING else None,
        is_living=status.phase.is_living,
    )


def _cause(id: str, folder: JobsFolder) -> str:
    """What the job's log says, of its first task; empty where it says nothing."""
    return root_cause(tail(folder.path / f"{id}_0_log.out"))
