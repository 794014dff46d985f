"""The `serve` that has claimed a deployment's name: whether it, or what it has submitted, still lives."""

import os
import socket

import psutil

from ...core.errors import RunDirectoryError
from ...core.processes import process_id
from ...core.records import DeploymentRecord
from ...core.rundir import RunDirectory
from ..launch.jobs import observe_jobs
from ..launch.launchers import launcher_named
from ..launch.local import LocalLauncher


def here() -> str:
    """What this process claims a name as: "PID on HOST", with a pid that is never used twice."""
    return f"{process_id.process_id(os.getpid())} on {socket.gethostname()}"


def is_living(record: DeploymentRecord) -> bool:
    """Whether the deployment's jobs live or, before there are any, the serve that submits them.

    Of processes on another machine nobody can tell, so they count as living. Raises SlurminferError.
    """
    if not record.jobs:
        return is_submitting(record)
    if is_elsewhere(record):
        return True
    statuses = observe_jobs(launcher_named(record.launcher).observe, record.jobs)
    return any(status.phase.is_living for status in statuses.values())


def is_submitting(record: DeploymentRecord) -> bool:
    """Whether the process that has claimed the name lives, as far as can be told from here."""
    process, _, host = record.claimed_by.partition(" on ")
    try:
        if "@" not in process:  # as of version 0.1.0: a bare pid
            return host != socket.gethostname() or psutil.pid_exists(int(process))
        return process_id.is_running(process) or (
            host != socket.gethostname() and not process_id.is_of_this_boot(process)
        )
    except (ValueError, OverflowError):
        return False


def is_elsewhere(record: DeploymentRecord) -> bool:
    """Whether the deployment's jobs are processes of another machine."""
    if record.launcher != LocalLauncher.name or host_of(record) == socket.gethostname():
        return False
    try:
        return not all(process_id.is_of_this_boot(job.id) for job in record.jobs)
    except ValueError:
        return False  # an invalid id is reported by the launcher


def require_here(run: RunDirectory, record: DeploymentRecord) -> None:
    """Raise RunDirectoryError if the deployment's jobs are processes of another machine."""
    if is_elsewhere(record):
        host = host_of(record)
        raise RunDirectoryError(f"the processes of deployment '{run.path.name}' are on {host}: stop it there")


def host_of(record: DeploymentRecord) -> str:
    """The machine on which `serve` ran."""
    return record.claimed_by.partition(" on ")[2]


def shown(record: DeploymentRecord) -> str:
    """ "PID on HOST" of the serve, for people."""
    process, _, host = record.claimed_by.partition(" on ")
    return f"{process.partition('@')[0]} on {host}"
