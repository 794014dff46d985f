"""The state of a deployment and its workers, from the scheduler, the run directory and the router."""

import time
from collections.abc import Callable
from contextlib import suppress

import httpx
import msgspec

from ...core.errors import EngineError, RunDirectoryError
from ...core.job import JobPhase, JobStatus
from ...core.records import (
    SILENCE_S,
    DeploymentRecord,
    JobRecord,
    QueuedJob,
    QueueRecord,
    RouterRecord,
    WorkerRecord,
    WorkerState,
)
from ...core.rundir import RunDirectory
from ..launch.launchers import launcher_named
from . import claim_holder, damaged
from .causes import dead_node, why
from .requests import ROUTER
from .router_link import router_link

_ROUTER_ANSWERS_S = 3.0
_LOOK_EVERY_S = 1.0


class WorkerView(msgspec.Struct, frozen=True, kw_only=True):
    """One worker. `state` is pending, starting, ready, draining, gone, or unreachable.

    Unreachable is a worker that its own record calls ready, and that the router calls unhealthy; where the router does
    not answer, one whose record has not been written for a minute.
    """

    id: str
    job: str
    state: str
    scheduler: str  # the scheduler's word for the job
    node: str = ""
    in_flight: int | None = None
    load_s: float | None = None
    seconds_left: float | None = None
    reason: str = ""


class DeploymentView(msgspec.Struct, frozen=True, kw_only=True):
    """One look at a deployment. `state` is stopped, pending, starting, ready, failed, damaged or unknown.

    Damaged is a deployment whose files cannot be read, unknown one whose processes are on another machine.
    """

    name: str
    state: str
    endpoint: str | None = None
    fingerprint: str = ""  # SHA-256 of the certificate for clients, where the endpoint speaks HTTPS
    router_job: str = ""
    router_scheduler: str = ""
    router_answers: bool = False
    reason: str = ""
    workers: tuple[WorkerView, ...] = ()

    @property
    def ready_workers(self) -> int:
        """How many workers are ready, and not unhealthy in the router's eyes where the router answers."""
        return sum(worker.state == WorkerState.READY for worker in self.workers)


def look(run: RunDirectory) -> DeploymentView:
    """What is true of a deployment now. Asks the scheduler, the run directory and the router once each.

    What is wrong with its files is part of the answer. Raises SlurmError where Slurm does not answer.
    """
    name = run.path.name
    try:
        deployment = run.read_deployment()
        if deployment is None:
            return DeploymentView(name=name, state="stopped")
        return _look(run, deployment)
    except RunDirectoryError as error:
        return DeploymentView(name=name, state="damaged", reason=f"{error}; {damaged.advice(run)}")


def _look(run: RunDirectory, deployment: DeploymentRecord) -> DeploymentView:
    name = run.path.name
    if claim_holder.is_elsewhere(deployment):
        reason = f"its processes are on {claim_holder.host_of(deployment)}; look at them there"
        return DeploymentView(name=name, state="unknown", reason=reason)
    looked_at = time.time()
    statuses = launcher_named(deployment.launcher).observe([job.id for job in deployment.jobs])
    _tell_router(run, deployment, statuses, looked_at)
    records = run.look_at_workers()
    router = run.read_router()
    live = _ask_router(run, router)
    jobs = {job.role: job for job in deployment.jobs}
    router_job = jobs.pop(ROUTER, None)
    workers = tuple(
        _worker_view(run, job, _corrected(statuses[job.id], records.get(role), looked_at), records.get(role), live)
        for role, job in sorted(jobs.items())
    )
    if router_job is not None:
        return _deployment_view(run, router_job, statuses[router_job.id], router, live, workers)
    if claim_holder.is_submitting(deployment):
        return DeploymentView(name=name, state="starting", workers=workers, reason="serve is still submitting")
    reason = f"serve ({claim_holder.shown(deployment)}) ended before it had submitted a job; serve again, or stop it"
    return DeploymentView(name=name, state="failed", workers=workers, reason=reason)


def _tell_router(
    run: RunDirectory, deployment: DeploymentRecord, statuses: dict[str, JobStatus], looked_at: float
) -> None:
    """Leave what the scheduler says for the router's status page: the router itself asks no scheduler."""
    workers = {
        job.role: QueuedJob(state=status.state, reason=status.reason, starts_at=status.starts_at)
        for job in deployment.jobs
        if job.role != ROUTER and (status := statuses[job.id])
    }
    with suppress(RunDirectoryError):  # whoever looks needs no page
        run.write_queue(QueueRecord(written_at=looked_at, workers=workers))


def until_ready(run: RunDirectory, on_look: Callable[[DeploymentView], None]) -> DeploymentView:
    """Look until the endpoint answers, one worker is ready, and none is starting; pending ones are not waited for.

    Raises EngineError with the root cause where the deployment fails before that. Waits as long as Slurm's queue does.
    """
    while True:
        view = look(run)
        on_look(view)
        if view.state in ("failed", "stopped", "damaged", "unknown"):
            raise EngineError(f"deployment '{view.name}' {view.state}: {view.reason or 'it was stopped'}")
        if view.state == "ready" and not any(worker.state == "starting" for worker in view.workers):
            return view
        time.sleep(_LOOK_EVERY_S)


def _deployment_view(
    run: RunDirectory,
    job: JobRecord,
    status: JobStatus,
    router: RouterRecord | None,
    live: dict[str, dict[str, object]] | None,
    workers: tuple[WorkerView, ...],
) -> DeploymentView:
    view = DeploymentView(
        name=run.path.name,
        state=_deployment_state(status, live, workers),
        endpoint=f"{router.url}/v1" if router and router.url else None,
        fingerprint=router.fingerprint if router and router.url else "",
        router_job=job.id,
        router_scheduler=status.state,
        router_answers=live is not None,
        workers=workers,
    )
    if view.state != "failed":
        return view
    reason = router.reason if router and router.reason else why(run, job, status)
    if status.phase.is_living:
        reason = workers[0].reason  # with the router's job alive, failed means that all workers are gone
    return msgspec.structs.replace(view, reason=reason)


def _deployment_state(
    status: JobStatus,
    live: dict[str, dict[str, object]] | None,
    workers: tuple[WorkerView, ...],
) -> str:
    if not status.phase.is_living:
        return "failed"
    if workers and all(worker.state == WorkerState.GONE for worker in workers):
        return "failed"
    if status.phase is JobPhase.PENDING and live is None:
        return "pending"
    is_ready = live is not None and any(worker.state == WorkerState.READY for worker in workers)
    return "ready" if is_ready else "starting"


def _worker_view(
    run: RunDirectory,
    job: JobRecord,
    status: JobStatus,
    found: WorkerRecord | RunDirectoryError | None,
    live: dict[str, dict[str, object]] | None,
) -> WorkerView:
    seen = (live or {}).get(job.role, {})
    record = None if isinstance(found, RunDirectoryError) else found
    trouble = _trouble(record, seen, live is not None)
    state = _worker_state(status, record, trouble)
    if state == WorkerState.READY and seen.get("state") == WorkerState.STARTING:
        state = WorkerState.STARTING  # the router has still to read its record, or to ask it
    in_flight = seen.get("in_flight")
    said = trouble if state == "unreachable" else record.reason if record else ""
    reason = status.reason if state == "pending" else said
    if state == WorkerState.GONE and not reason:
        reason = dead_node(run, record) or why(run, job, status)
    return WorkerView(
        id=job.role,
        job=job.id,
        state=state,
        scheduler=status.state,
        node=status.node or (record.host if record else ""),
        in_flight=in_flight if isinstance(in_flight, int) else None,
        load_s=record.load_s if record else None,
        seconds_left=max(0.0, record.ends_at - time.time()) if record and record.ends_at else None,
        reason=str(found) if isinstance(found, RunDirectoryError) else reason,
    )


def _corrected(status: JobStatus, found: WorkerRecord | RunDirectoryError | None, looked_at: float) -> JobStatus:
    """The scheduler's word for a job; a heartbeat of the worker that is newer than it says that the job runs."""
    is_newer = isinstance(found, WorkerRecord) and found.updated_at > looked_at and found.state is not WorkerState.GONE
    if status.phase is JobPhase.PENDING and is_newer:
        return msgspec.structs.replace(status, phase=JobPhase.RUNNING, state="RUNNING", reason="")
    return status


def _trouble(record: WorkerRecord | None, seen: dict[str, object], router_answers: bool) -> str:
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


def _ask_router(run: RunDirectory, router: RouterRecord | None) -> dict[str, dict[str, object]] | None:
    """The router's own view of its workers by id, or None if it does not answer, or is not ours."""
    link = router_link(run, router)
    if link is None:
        return None
    try:
        with httpx.Client(verify=link.tls, timeout=_ROUTER_ANSWERS_S, trust_env=False) as client:
            answer = client.get(f"{link.url}/workers", headers={"Authorization": f"Bearer {run.key()}"})
        answer.raise_for_status()
        return {worker["id"]: worker for worker in answer.json()["workers"]}
    except (httpx.HTTPError, ValueError, KeyError):
        return None
