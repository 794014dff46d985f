"""Starting and stopping a deployment: either all of its jobs are submitted, or none."""

import os
import socket
import time

import msgspec
import psutil

from ...core.errors import RunActiveError, SlurminferError
from ...core.job import Launcher
from ...core.records import DeploymentRecord, JobRecord
from ...core.rundir import RunDirectory
from ...core.spec import DeploymentSpec
from ..launch.launchers import launcher_named
from ..terminal.progress import model_progress
from .requests import ROUTER, requests
from .spec import with_models_found

_STOP_PATIENCE_S = 60.0
# An agent lets requests in flight finish for 20 s after SIGTERM, then gives its engine 5 s.
_GRACE_S = 30.0


def start(spec: DeploymentSpec, launcher: Launcher) -> RunDirectory:
    """Find the models of a spec, showing how far that is, and submit its jobs: all of them, or none.

    Raises ModelError, RunActiveError if a living deployment has the name, and whatever the launcher refuses.
    """
    with model_progress() as progress:
        found = with_models_found(spec, progress)
    return submit(found, launcher)


def submit(spec: DeploymentSpec, launcher: Launcher) -> RunDirectory:
    """Submit all jobs of a spec whose models are found. Either all are submitted or none is left.

    Raises RunActiveError if a living deployment has the name, and whatever the launcher refuses.
    """
    run = RunDirectory.named(spec.name)
    run.create()
    record = _claim(run, launcher)
    try:
        run.write_spec(spec)
        asked = list(requests(spec, run, run.read_serials()))
        run.take_serials(request.role for request in asked if request.role != ROUTER)
        for request in asked:
            job = JobRecord(id=launcher.submit(request), role=request.role)
            record = msgspec.structs.replace(record, jobs=(*record.jobs, job))
            run.write_deployment(record)
    except BaseException:
        launcher.cancel([job.id for job in record.jobs])
        run.clear()
        raise
    return run


def stop(run: RunDirectory) -> int:
    """End all jobs of a deployment and forget them; how many there were. Stopping what is stopped is no error.

    Raises SlurminferError if jobs are still there after a minute.
    """
    deployment = run.read_deployment()
    if deployment is None:
        return 0
    launcher = launcher_named(deployment.launcher)
    ids = [job.id for job in deployment.jobs]
    launcher.cancel(ids)
    started = time.monotonic()
    while left := [job for job, status in launcher.observe(ids).items() if status.phase.is_living]:
        waited = time.monotonic() - started
        if waited > _GRACE_S:
            launcher.kill(left)
        if waited > _STOP_PATIENCE_S:
            raise SlurminferError(f"jobs {', '.join(left)} have not ended {_STOP_PATIENCE_S:g} s after being cancelled")
        time.sleep(0.3)
    run.clear()
    return len(ids)


def _claim(run: RunDirectory, launcher: Launcher) -> DeploymentRecord:
    record = DeploymentRecord(
        launcher=launcher.name, claimed_by=f"{os.getpid()} on {socket.gethostname()}", claimed_at=time.time()
    )
    if run.claim(record):
        return record
    holder = run.read_deployment()
    if holder is not None and _is_living(holder):
        raise RunActiveError(
            f"deployment '{run.path.name}' exists already, claimed by process {holder.claimed_by} at "
            f"{time.strftime('%F %T', time.localtime(holder.claimed_at))}; "
            f"end it with 'slurminfer stop {run.path.name}', or choose another --name"
        )
    run.clear()
    if run.claim(record):
        return record
    raise RunActiveError(f"deployment '{run.path.name}' has just been claimed by another serve")


def _is_living(record: DeploymentRecord) -> bool:
    if not record.jobs:
        return _claimer_lives(record.claimed_by)
    statuses = launcher_named(record.launcher).observe([job.id for job in record.jobs])
    return any(status.phase.is_living for status in statuses.values())


def _claimer_lives(claimed_by: str) -> bool:
    """Whether the serve that has not submitted anything yet is still at it; on another host nobody can tell."""
    pid, _, host = claimed_by.partition(" on ")
    return host != socket.gethostname() or psutil.pid_exists(int(pid))
