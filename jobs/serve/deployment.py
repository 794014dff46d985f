"""Starting and stopping a deployment: either all of its jobs are submitted, or none."""

import asyncio
import time
from collections.abc import Sequence

import msgspec

from ...core.errors import RunActiveError, RunDirectoryError, SlurminferError
from ...core.job import JobPhase, Launcher
from ...core.net.address import LOCAL_ADDRESS
from ...core.private_folder import sweep
from ...core.records import ROUTER, DeploymentRecord, JobRecord
from ...core.rundir import RunDirectory
from ...core.spec.deployment import DeploymentSpec
from ...router.control.listeners import require_free
from ..launch.jobs import observe_jobs
from ..launch.launchers import launcher_named
from ..launch.local import LocalLauncher
from ..receipt.ledger import close_all
from ..terminal.progress import model_progress
from . import claim_holder, damaged
from .containers import require_launcher
from .requests import name_of, requests, sought
from .spec import with_models_found

_STOP_PATIENCE_S = 60.0
# An agent lets requests in flight finish for 20 s after SIGTERM, then gives its engine 5 s.
_GRACE_S = 30.0


def start(spec: DeploymentSpec, launcher: Launcher) -> RunDirectory:
    """Find the models of a spec, showing how far that is, and submit its jobs: all of them, or none.

    Raises ModelError, RunActiveError if a living deployment has the name, and whatever the launcher refuses.
    """
    require_launcher(spec, launcher.name)
    for request in requests(spec, RunDirectory.named(spec.name), {}):
        launcher.check(request)  # before anything is fetched
    with model_progress() as progress:
        found = with_models_found(spec, progress)
    return submit(found, launcher)


def submit(spec: DeploymentSpec, launcher: Launcher) -> RunDirectory:
    """Submit all jobs of a spec whose models are found. Either all are submitted or none is left.

    Raises RunActiveError if a living deployment has the name, RunStoppedError if it is stopped meanwhile, and whatever
    the launcher refuses; RouterError where the router's port is taken, if that can be known here.
    """
    run = RunDirectory.named(spec.name)
    run.create()
    record = _claim(run, launcher)
    try:
        run.write_spec(spec)
        _require_port(spec, launcher)
        asked = list(requests(spec, run, run.read_serials()))
        run.take_serials(request.role for request in asked if request.role != ROUTER)
        for slot, request in enumerate(asked, start=-1):  # the router's is the first
            run.claims.require(record)
            job = JobRecord(
                id=launcher.submit(request),
                name=request.name,
                role=request.role,
                slot=max(0, slot),
                submitted_at=time.time(),
            )
            is_last = len(record.jobs) + 1 == len(asked)
            record = msgspec.structs.replace(record, jobs=(*record.jobs, job), is_complete=is_last)
            run.claims.update(record)
    except BaseException as error:
        _abandon(run, launcher, record, error)
        raise
    return run


def _require_port(spec: DeploymentSpec, launcher: Launcher) -> None:
    """Raise RouterError where the router is to run on this machine, and its port is taken."""
    if launcher.name == LocalLauncher.name:
        asyncio.run(require_free(LOCAL_ADDRESS, spec.router.port))


def stop(run: RunDirectory, force: bool = False) -> int | None:
    """End all jobs of a deployment and forget them; how many there were, None if it was stopped already.

    Args:
        run: directory of the deployment.
        force: where `deployment.json` is damaged, end the jobs that other files and this machine's processes tell of.

    Raises SlurminferError if jobs are still there after a minute, RunDirectoryError where nobody knows what to end.
    """
    try:
        count = _end_all(run)
    except RunDirectoryError as error:
        if not force:
            raise RunDirectoryError(f"{error}; {damaged.advice(run)}") from error
        count = sum(end_jobs(launcher_named(name), jobs) for name, jobs in damaged.find_jobs(run).items())
        close_all(run, (), time.time())
    if count is not None:
        run.clear()
    sweep()  # after processes of this machine that were killed
    return count


def _end_all(run: RunDirectory) -> int | None:
    """End the jobs that the deployment's record names; how many there were, None without a record."""
    deployment = run.read_deployment()
    if deployment is None:
        return None
    claim_holder.require_here(run, deployment)
    # A serve that is still submitting looks for this after each job. Jobs that it has noted before are read below.
    run.claims.announce_stop(deployment)
    deployment = run.read_deployment()
    if deployment is None:  # the serve has given up itself, or another stop was faster
        return 0
    launcher = launcher_named(deployment.launcher)
    count = end_jobs(launcher, [*deployment.jobs, *_intended(run, deployment, launcher)])
    close_all(run, deployment.jobs, time.time())
    return count


def _intended(run: RunDirectory, deployment: DeploymentRecord, launcher: Launcher) -> list[JobRecord]:
    """Jobs that a controller has submitted and died before it could note them. The spec may be damaged."""
    noted = {job.id for job in deployment.jobs}
    return [
        JobRecord(id=job, name=name_of(run, role), role=role)
        for role, intended in deployment.intended.items()
        for job in launcher.find(sought(run, role, intended.slot))
        if job not in noted
    ]


def end_jobs(launcher: Launcher, jobs: Sequence[JobRecord]) -> int:
    """Cancel jobs and wait until they have ended; how many they are. Raises SlurminferError after a minute.

    Jobs that were on their way back to the queue are cancelled there once more. An id that is another job's is left.
    """
    statuses = observe_jobs(launcher.observe, jobs)
    own = [job for job in jobs if not statuses[job.id].is_anothers]
    launcher.cancel([job.id for job in own])
    started = time.monotonic()
    while left := {
        job: status.phase for job, status in observe_jobs(launcher.observe, own).items() if status.phase.is_living
    }:
        launcher.cancel([job for job, phase in left.items() if phase is JobPhase.PENDING])
        waited = time.monotonic() - started
        if waited > _GRACE_S:
            launcher.kill(list(left))
        if waited > _STOP_PATIENCE_S:
            raise SlurminferError(f"jobs {', '.join(left)} have not ended {_STOP_PATIENCE_S:g} s after being cancelled")
        time.sleep(0.3)
    return len(own)


def _abandon(run: RunDirectory, launcher: Launcher, record: DeploymentRecord, reason: BaseException) -> None:
    """Cancel what has been submitted and give the name back. Raises SlurminferError where jobs may be left."""
    ids = [job.id for job in record.jobs]
    try:
        launcher.cancel(ids)
    except SlurminferError as error:
        raise SlurminferError(
            f"{reason}; jobs {', '.join(ids)} are left, which could not be cancelled: {error}"
        ) from error
    try:
        is_ours = run.claims.is_held(record)
    except RunDirectoryError:
        is_ours = False
    if is_ours:
        run.clear()


def _claim(run: RunDirectory, launcher: Launcher) -> DeploymentRecord:
    record = DeploymentRecord(launcher=launcher.name, claimed_by=claim_holder.here(), claimed_at=time.time())
    if run.claims.take(record):
        return record
    try:
        holder = run.read_deployment()
    except RunDirectoryError as error:
        raise RunDirectoryError(f"{error}; {damaged.advice(run)}") from error
    if holder is not None and claim_holder.is_living(holder):
        raise RunActiveError(
            f"deployment '{run.path.name}' exists already: served at "
            f"{time.strftime('%F %T', time.localtime(holder.claimed_at))} by process {claim_holder.shown(holder)}, and "
            f"not stopped; 'slurminfer stop {run.path.name}' ends it; another `name` in the spec (for serve also "
            "--name) gives this one a name of its own"
        )
    taken = run.claims.take(record) if holder is None else run.claims.take_over(holder, record, claim_holder.is_living)
    if not taken:
        raise RunActiveError(f"deployment '{run.path.name}' has just been claimed by another serve")
    close_all(run, holder.jobs if holder is not None else (), time.time())
    run.clear_records()
    return record
