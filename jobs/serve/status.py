"""The state of a deployment and its workers, from the scheduler, the run directory and the router."""

import time
from collections.abc import Callable

import httpx
import msgspec

from ...core.errors import EngineError
from ...core.job import JobPhase, JobStatus
from ...core.logs import PLAIN, root_cause, tail
from ...core.records import JobRecord, RouterRecord, WorkerRecord, WorkerState
from ...core.rundir import RunDirectory
from ...nodes.engines.table import adapter_of
from ..launch.launchers import launcher_named
from .requests import ROUTER

_ROUTER_ANSWERS_S = 3.0
_LOOK_EVERY_S = 1.0


class WorkerView(msgspec.Struct, frozen=True, kw_only=True):
    """One worker. `state` is pending, starting, ready, draining, gone, or unreachable.

    Unreachable is a worker that its own record calls ready, and that the router calls unhealthy.
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
    """One look at a deployment. `state` is stopped, pending, starting, ready or failed."""

    name: str
    state: str
    endpoint: str | None = None
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
    """What is true of a deployment now. Asks the scheduler, the run directory and the router once each."""
    name = run.path.name
    deployment = run.read_deployment()
    if deployment is None:
        return DeploymentView(name=name, state="stopped")
    statuses = launcher_named(deployment.launcher).observe([job.id for job in deployment.jobs])
    records = {record.id: record for record in run.read_workers()}
    router = run.read_router()
    live = _ask_router(run, router)
    jobs = {job.role: job for job in deployment.jobs}
    router_job = jobs.pop(ROUTER, None)
    workers = tuple(
        _worker_view(run, job, statuses[job.id], records.get(role), live) for role, job in sorted(jobs.items())
    )
    if router_job is None:
        return DeploymentView(name=name, state="starting", workers=workers, reason="serve is still submitting")
    return _deployment_view(run, router_job, statuses[router_job.id], router, live, workers)


def until_ready(run: RunDirectory, on_look: Callable[[DeploymentView], None]) -> DeploymentView:
    """Look until the endpoint answers, one worker is ready, and none is starting; pending ones are not waited for.

    Raises EngineError with the root cause where the deployment fails before that. Waits as long as Slurm's queue does.
    """
    while True:
        view = look(run)
        on_look(view)
        if view.state in ("failed", "stopped"):
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
        router_job=job.id,
        router_scheduler=status.state,
        router_answers=live is not None,
        workers=workers,
    )
    if view.state != "failed":
        return view
    reason = router.reason if router and router.reason else _why(run, job, status)
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
    if status.phase is JobPhase.PENDING:
        return "pending"
    is_ready = live is not None and any(worker.state == WorkerState.READY for worker in workers)
    return "ready" if is_ready else "starting"


def _worker_view(
    run: RunDirectory,
    job: JobRecord,
    status: JobStatus,
    record: WorkerRecord | None,
    live: dict[str, dict[str, object]] | None,
) -> WorkerView:
    seen = (live or {}).get(job.role, {})
    state = _worker_state(status, record, bool(seen.get("healthy", True)))
    in_flight = seen.get("in_flight")
    reason = status.reason if state == "pending" else (record.reason if record else "")
    if state == WorkerState.GONE and not reason:
        reason = _dead_node(run, record) or _why(run, job, status)
    return WorkerView(
        id=job.role,
        job=job.id,
        state=state,
        scheduler=status.state,
        node=status.node or (record.host if record else ""),
        in_flight=in_flight if isinstance(in_flight, int) else None,
        load_s=record.load_s if record else None,
        seconds_left=max(0.0, record.ends_at - time.time()) if record and record.ends_at else None,
        reason=reason,
    )


def _worker_state(status: JobStatus, record: WorkerRecord | None, healthy: bool) -> str:
    """The scheduler knows whether the job lives; only a living job's own word counts; the router may know better."""
    if status.phase is JobPhase.PENDING:
        return "pending"
    if status.phase is not JobPhase.RUNNING:
        return WorkerState.GONE
    if record is None:
        return WorkerState.STARTING
    return "unreachable" if record.state is WorkerState.READY and not healthy else record.state


def _dead_node(run: RunDirectory, record: WorkerRecord | None) -> str:
    """What the agent of a further node said of its engine's death, where the worker's head could say nothing more."""
    if record is None:
        return ""
    nodes = run.read_nodes(record.id, record.epoch, run.read_spec().pool_of(record.id).nodes)
    return next((str(node) for node in nodes if node.reason), "")


def _why(run: RunDirectory, job: JobRecord, status: JobStatus) -> str:
    """Why a job ended: the scheduler's own reason, and the root cause out of its newest log."""
    logs = sorted(run.logs_of(job.role).glob("*.log"), key=lambda path: path.stat().st_mtime)
    log_format = PLAIN if job.role == ROUTER else adapter_of(run.read_spec().pool_of(job.role).engine).log_format
    said = next((cause for path in reversed(logs) if (cause := root_cause(tail(path), log_format))), "")
    return ": ".join(part for part in (status.reason or status.state, said) if part)


def _ask_router(run: RunDirectory, router: RouterRecord | None) -> dict[str, dict[str, object]] | None:
    """The router's own view of its workers by id, or None if it does not answer."""
    if router is None or router.url is None:
        return None
    headers = {"Authorization": f"Bearer {run.key()}"}
    try:
        answer = httpx.get(f"{router.url}/workers", headers=headers, timeout=_ROUTER_ANSWERS_S, trust_env=False)
        answer.raise_for_status()
        return {worker["id"]: worker for worker in answer.json()["workers"]}
    except (httpx.HTTPError, ValueError, KeyError):
        return None
