"""The state of a deployment and its workers, from the scheduler, the run directory and the router."""

import time
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping

import msgspec

from ....core.errors import RunDirectoryError, RunStoppedError, SpecError
from ....core.job import JobPhase, JobStatus
from ....core.records import (
    ROUTER,
    SILENCE_S,
    DeploymentRecord,
    FleetRecord,
    JobRecord,
    RouterRecord,
    WorkerState,
)
from ....core.rundir import RunDirectory
from ....core.workers.ids import role_of
from ....slurm.ending import Endings
from ...launch.jobs import observe_jobs
from ...launch.launchers import launcher_named
from ...launch.local import LocalLauncher
from ...receipt.harvest import HarvestLine, harvest
from .. import claim_holder, damaged
from ..queue_report import queued_job, report
from ..router_link import ask_router, workers_by_id
from .causes import explanation, why
from .failed import require_not_failed
from .state import SHOWN_ENDED, DeploymentView, PoolView, WorkerView
from .worker_state import corrected, why_it_waits, worker_view

_LOOK_EVERY_S = 1.0
_TRY_AGAIN = "then stop and serve again; without a change of the spec, 'slurminfer scale {} {} auto' tries again"
_SHOWN_DECISIONS = 20
_REPLACED_S = 0.3  # a successor's record and its identity are not written in the same instant


def look(run: RunDirectory, endings: Endings | None = None) -> DeploymentView:
    """What is true of a deployment now. Asks the scheduler, the run directory and the router once each.

    `endings` remembers how jobs have ended, for whoever looks again and again.

    What is wrong with its files is part of the answer. Raises SlurmError where Slurm does not answer.
    """
    name = run.path.name
    try:
        deployment = run.read_deployment()
        if deployment is None:
            return DeploymentView(name=name, state="stopped")
        return _look(run, deployment, endings or Endings())
    except RunDirectoryError as error:
        return DeploymentView(name=name, state="damaged", reason=f"{error}; {damaged.advice(run)}")


def _look(run: RunDirectory, deployment: DeploymentRecord, endings: Endings) -> DeploymentView:
    name = run.path.name
    if claim_holder.is_elsewhere(deployment):
        reason = f"its processes are on {claim_holder.host_of(deployment)}; look at them there"
        return DeploymentView(name=name, state="unknown", reason=reason)
    looked_at = time.time()
    statuses = observe_jobs(launcher_named(deployment.launcher).observe, deployment.jobs)
    if deployment.launcher == "slurm":
        statuses = endings.complete(statuses)
    _tell_router(run, deployment, statuses, looked_at)
    records = run.look_at_workers()
    router, live = _find_router(run)
    jobs = _of_workers(deployment, statuses, records)
    router_job = _router_job([job for job in deployment.jobs if job.role == ROUTER], statuses, router)
    workers = tuple(
        worker_view(run, job, corrected(statuses[job.id], records.get(role), looked_at), records.get(role), live)
        for role, job in sorted(jobs.items())
    )
    fleet = run.read_fleet() or FleetRecord(written_at=0.0)
    if router_job is not None:
        view = _deployment_view(run, router_job, statuses[router_job.id], router, live, workers, fleet)
        if deployment.launcher == LocalLauncher.name and not statuses[router_job.id].phase.is_living:
            view = _without_keeper(view)
        return msgspec.structs.replace(view, decisions=fleet.decisions[-_SHOWN_DECISIONS:], trouble=fleet.trouble)
    if claim_holder.is_submitting(deployment):
        return DeploymentView(name=name, state="starting", workers=workers, reason="serve is still submitting")
    reason = f"serve ({claim_holder.shown(deployment)}) ended before it had submitted a job; serve again, or stop it"
    return DeploymentView(name=name, state="failed", workers=workers, reason=reason)


def _of_workers(
    deployment: DeploymentRecord, statuses: Mapping[str, JobStatus], records: Collection[str]
) -> dict[str, JobRecord]:
    """By worker's id its job. Several may share one, of which each has a record once the job has started."""
    several: defaultdict[str, list[str]] = defaultdict(list)
    for worker_id in records:
        several[role_of(worker_id)].append(worker_id)
    found: dict[str, JobRecord] = {}
    for job in deployment.jobs:
        is_waiting = statuses[job.id].phase is JobPhase.PENDING
        ids = [job.role] if is_waiting else [one for one in several[job.role] if one != job.role] or [job.role]
        if job.role != ROUTER:
            found |= {worker_id: msgspec.structs.replace(job, role=worker_id) for worker_id in ids}
    return found


def _tell_router(
    run: RunDirectory, deployment: DeploymentRecord, statuses: dict[str, JobStatus], looked_at: float
) -> None:
    """Leave what the scheduler says for the router's status page: the router itself asks no scheduler."""
    workers = {job.role: queued_job(statuses[job.id]) for job in deployment.jobs if job.role != ROUTER}
    report(run, workers, looked_at)


def until_ready(run: RunDirectory, on_look: Callable[[DeploymentView], None]) -> DeploymentView:
    """Look until the endpoint answers, one worker is ready, and none is starting; pending ones are not waited for.

    Nor is a worker of a deployment that is asleep.

    Waits as long as Slurm's queue does. Raises EngineError with the root cause where the deployment fails before that,
    and where no waiting helps: Slurm does not start the router's job as it is, or none of the workers; RunStoppedError
    where `stop` ends it meanwhile.
    """
    endings, claim = Endings(), _claim(run)
    while True:
        view = look(run, endings)
        if view.state == "stopped" or (claim is not None and run.claims.was_stopped(claim)):
            raise RunStoppedError(f"deployment '{run.path.name}' was stopped")
        on_look(view)
        require_not_failed(view)
        if view.state == "asleep":  # it answers: the next request starts a worker
            return view
        if view.state == "ready" and not any(worker.state == "starting" for worker in view.workers):
            return view
        time.sleep(_LOOK_EVERY_S)


def _claim(run: RunDirectory) -> DeploymentRecord | None:
    try:
        return run.read_deployment()
    except RunDirectoryError:  # `look` says so
        return None


def _find_router(run: RunDirectory) -> tuple[RouterRecord | None, Mapping[str, Mapping[str, object]] | None]:
    """The router's record and its view of its workers. One that does not answer may just have been replaced."""
    router = run.read_router()
    live = _ask_router(run, router)
    if live is None and router is not None and router.private_url is not None:
        time.sleep(_REPLACED_S)
        router = run.read_router()
        live = _ask_router(run, router)
    return router, live


def _router_job(jobs: list[JobRecord], statuses: dict[str, JobStatus], router: RouterRecord | None) -> JobRecord | None:
    """Of a router and its successors, the job that clients reach; or else the one that has come furthest."""

    def standing(job: JobRecord) -> tuple[bool, bool, bool]:
        status = statuses[job.id]
        is_found = router is not None and router.job == job.id.partition("@")[0]
        return status.phase.is_living, is_found, status.phase is JobPhase.RUNNING

    return max(reversed(jobs), key=standing, default=None)


def _deployment_view(
    run: RunDirectory,
    job: JobRecord,
    status: JobStatus,
    router: RouterRecord | None,
    live: Mapping[str, Mapping[str, object]] | None,
    workers: tuple[WorkerView, ...],
    fleet: FleetRecord,
) -> DeploymentView:
    pools, is_looked_after = _pools(run, fleet), time.time() - fleet.written_at < SILENCE_S
    view = DeploymentView(
        name=run.path.name,
        state=_deployment_state(status, live, workers, pools, is_looked_after=is_looked_after),
        endpoint=f"{router.url}/v1" if router and router.url else None,
        status_page=f"{router.url}/" if router and router.url and live is not None and _has_page(run) else None,
        fingerprint=router.fingerprint if router and router.url else "",
        router_job=job.id,
        router_scheduler=status.state,
        router_answers=live is not None,
        workers=workers,
        pools=pools,
    )
    if status.phase is JobPhase.PENDING:
        view = msgspec.structs.replace(view, obstacle=status.obstacle, advice=status.advice)
    if view.state == "pending":
        return msgspec.structs.replace(view, reason=why_it_waits(status))
    if view.state != "failed":
        return view
    if status.phase.is_living:  # with the router's job alive, failed means that all workers are gone
        if not workers:
            gave_up = next(pool for pool in pools if pool.gave_up)
            advice = next((one.advice for one in reversed(gave_up.ended)), "") or "what the cause says"
            again = _TRY_AGAIN.format(view.name, gave_up.name)
            return msgspec.structs.replace(view, reason=gave_up.waits, advice=f"{advice}; {again}")
        first = workers[0]
        return msgspec.structs.replace(view, reason=first.reason, cause=first.cause, advice=first.advice)
    said = router.reason if router and router.reason else ""
    found = explanation(run, job, status, said)
    reason = said or why(run, job, status)
    return msgspec.structs.replace(view, reason=reason, cause=found.cause, advice=found.advice)


def _without_keeper(view: DeploymentView) -> DeploymentView:
    """A deployment without Slurm whose process that keeps router and controller has ended."""
    said = view.cause or view.reason
    reason = "the process that keeps router and controller has ended" + (f": {said}" if said else "")
    advice = f"'slurminfer stop {view.name}', then serve again: without Slurm, nobody starts that process again"
    return msgspec.structs.replace(
        view, reason=reason, cause="", advice=f"{view.advice}; {advice}" if view.advice else advice
    )


def _pools(run: RunDirectory, fleet: FleetRecord) -> tuple[PoolView, ...]:
    backfill, harvested = _backfill_pools(run)
    return tuple(
        PoolView(
            name=name,
            wanted=pool.wanted,
            waits=pool.waits,
            waits_until=pool.waits_until,
            gave_up=pool.gave_up,
            is_asleep=pool.is_asleep,
            ended=tuple(one for one in pool.ended if not one.is_wanted)[-SHOWN_ENDED:],
            is_backfill=name in backfill,
            harvest=harvested.get(name),
        )
        for name, pool in fleet.pools.items()
        if name != ROUTER
    )


def _backfill_pools(run: RunDirectory) -> tuple[set[str], dict[str, HarvestLine]]:
    """The names of the backfill pools, and what those that have had jobs have served; as far as it can be read."""
    try:
        spec = run.read_spec()
        lines = {line.pool: line for line in harvest(run, spec).lines()}
    except (RunDirectoryError, SpecError):
        return set(), {}
    return {pool.name for pool in spec.pool if pool.backfill}, lines


def _has_page(run: RunDirectory) -> bool:
    try:
        return run.read_spec().router.backend == "native"
    except (RunDirectoryError, SpecError):
        return False


def _deployment_state(
    status: JobStatus,
    live: Mapping[str, Mapping[str, object]] | None,
    workers: tuple[WorkerView, ...],
    pools: tuple[PoolView, ...],
    *,
    is_looked_after: bool,
) -> str:
    if not status.phase.is_living or (not workers and any(pool.gave_up for pool in pools)):
        return "failed"
    all_gone = all(worker.state == WorkerState.GONE for worker in workers)
    if workers and all_gone and not is_looked_after:  # a controller replaces them, unless the pool has given up
        return "failed"
    if status.phase is JobPhase.PENDING and live is None:
        return "pending"
    if live is not None and all_gone and pools and all(pool.is_asleep for pool in pools):
        return "asleep"
    is_ready = live is not None and any(worker.state == WorkerState.READY for worker in workers)
    return "ready" if is_ready else "starting"


def _ask_router(run: RunDirectory, router: RouterRecord | None) -> Mapping[str, Mapping[str, object]] | None:
    """The router's own view of its workers by id, or None if it does not answer, or is not ours."""
    answers = ask_router(run, router, "/workers")
    return None if answers is None else workers_by_id(answers[0])
