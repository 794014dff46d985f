"""From a spec to submitted jobs: what `slurminfer serve` does."""

import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import psutil

from ...core.errors import RunActiveError
from ...core.job import JobPhase, JobRequest, Launcher
from ...core.records import DeploymentRecord, JobRecord
from ...core.rundir import RunDirectory
from ...core.spec import DeploymentSpec, PoolSpec, dump_spec, load_spec, parse_spec
from ...nodes.agent.entry import WorkerEntry
from ...quant.models import resolve, resolve_head
from ...quant.progress import Progress, silent
from ..launch.launchers import launcher_named
from .router_entry import RouterEntry

ROUTER = "router"
_ROUTER_SIGNAL_S = 30


def read_spec(path: Path, name: str | None = None) -> DeploymentSpec:
    """The spec file, under another name if one is given. Raises SpecError."""
    spec = load_spec(path)
    return spec if name is None else parse_spec(dump_spec(msgspec.structs.replace(spec, name=name)))


def launcher(local: bool) -> Launcher:
    """Slurm, or this machine. Raises SlurmError where there is no Slurm."""
    return launcher_named("local" if local else "slurm")


def dry_run(spec: DeploymentSpec, launcher: Launcher) -> str:
    """Exactly what `submit` would hand over, job by job. The model is taken as written: nothing is fetched."""
    run = RunDirectory.named(spec.name)
    parts = (f"# ---- {request.role} ----\n{launcher.render(request)}" for request in requests(spec, run))
    return "\n".join(parts)


def with_model_found(spec: DeploymentSpec, progress: Progress = silent) -> DeploymentSpec:
    """The spec with its models as directories on this filesystem, fetched or converted if need be.

    Clients keep calling the model what the user called it: the hub id, or the directory's name. Raises ModelError.
    """
    asked = spec.model.path
    # What it means for other engines is theirs to say: SGLang's "awq_marlin" is no kind of checkpoint.
    is_native = any(pool.engine == "native" for pool in spec.pool)
    directory = resolve(asked, progress, spec.model.quantization if is_native else None)
    is_hub_id = asked.count("/") == 1 and not Path(asked).expanduser().exists()
    name = spec.model.name or (asked if is_hub_id else directory.name)
    model = msgspec.structs.replace(spec.model, path=str(directory), name=name)
    speculative = spec.speculative
    if speculative is not None and speculative.draft_model is not None:
        find = resolve_head if speculative.is_head else resolve
        draft = find(speculative.draft_model, progress)
        speculative = msgspec.structs.replace(speculative, draft_model=str(draft))
    return msgspec.structs.replace(spec, model=model, speculative=speculative)


def requests(spec: DeploymentSpec, run: RunDirectory) -> Iterator[JobRequest]:
    """Every job of a deployment, the router's first. Pure."""
    yield JobRequest(
        name=f"{spec.name}-{ROUTER}",
        role=ROUTER,
        entry=RouterEntry(run.path),
        log_folder=run.logs_of(ROUTER),
        cpus_per_task=spec.router.cpus_per_task,
        mem=spec.router.mem,
        time_s=spec.router_time_s,
        signal_s=_ROUTER_SIGNAL_S,
        partition=spec.router.partition,
        account=spec.router.account,
        setup=spec.router.setup,
        slurm=spec.router.slurm,
    )
    for worker_id, pool in spec.workers():
        yield _worker_request(spec, run, worker_id, pool)


def submit(spec: DeploymentSpec, launcher: Launcher) -> RunDirectory:
    """Submit all jobs of a spec whose model is found. Either all are submitted or none is left.

    Raises RunActiveError if a living deployment has the name, and whatever the launcher refuses.
    """
    run = RunDirectory.named(spec.name)
    run.create()
    record = _claim(run, launcher)
    try:
        run.write_spec(spec)
        for request in requests(spec, run):
            job = JobRecord(id=launcher.submit(request), role=request.role)
            record = msgspec.structs.replace(record, jobs=(*record.jobs, job))
            run.write_deployment(record)
    except BaseException:
        launcher.cancel([job.id for job in record.jobs])
        run.clear()
        raise
    return run


def _worker_request(spec: DeploymentSpec, run: RunDirectory, worker_id: str, pool: PoolSpec) -> JobRequest:
    return JobRequest(
        name=f"{spec.name}-{worker_id}",
        role=worker_id,
        entry=WorkerEntry(run.path, worker_id),
        log_folder=run.logs_of(worker_id),
        nodes=pool.nodes,
        cpus_per_task=pool.cpus_per_task,
        gpus_per_node=pool.gpus_per_node,
        mem=pool.mem,
        time_s=pool.time_s,
        signal_s=pool.drain_seconds,
        partition=pool.partition,
        account=pool.account,
        setup=pool.setup,
        env=pool.env,
        slurm=pool.slurm,
    )


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
    return any(status.phase in (JobPhase.PENDING, JobPhase.RUNNING) for status in statuses.values())


def _claimer_lives(claimed_by: str) -> bool:
    """Whether the serve that has not submitted anything yet is still at it; on another host nobody can tell."""
    pid, _, host = claimed_by.partition(" on ")
    return host != socket.gethostname() or psutil.pid_exists(int(pid))
