"""The jobs of a deployment, as requests to a launcher."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ...core.job import JobRequest, Launcher, RequeueableEntry
from ...core.processes.process import accept_any_text
from ...core.processes.python import module_argv
from ...core.records import ROUTER
from ...core.rundir import RunDirectory
from ...core.spec.deployment import DeploymentSpec
from ...nodes.agent.entry import WorkerEntry
from ...nodes.agent.hooks import Hooks
from ...nodes.containers.contain import preview
from ...slurm.ending import ends_at, is_taken_away, why_ended
from ..launch.request import request_of
from .containers import require_launcher
from .router_job import run_router_job

_ROUTER_SIGNAL_S = 60  # for answers in flight
# The controller that an agent starts where the router's job is gone: it brings the router back, and ends then.
_STANDBY = ("slurminfer.jobs.fleet", "--standby")


@dataclass(frozen=True)
class RouterEntry(RequeueableEntry):
    """The router of one deployment. submitit pickles it."""

    run_path: Path

    def __call__(self) -> None:
        """Serve until told to stop. Raises RouterError where it cannot."""
        accept_any_text()
        run_router_job(RunDirectory(self.run_path), is_taken_away)

    def argv(self) -> Sequence[str]:
        """The command line that runs the same router, for a machine without Slurm."""
        return module_argv("slurminfer.jobs.serve", str(self.run_path))


def name_of(run: RunDirectory, role: str) -> str:
    """The name of the job of a role."""
    return f"{run.path.name}-{role}"


def sought(run: RunDirectory, role: str, slot: int) -> JobRequest:
    """What a launcher needs to find the job of a role, whatever the spec says. Pure."""
    entry = RouterEntry(run.path) if role == ROUTER else _worker_entry(run, role, slot)
    return JobRequest(name=name_of(run, role), role=role, entry=entry, log_folder=run.logs_of(role))


def _worker_entry(run: RunDirectory, worker_id: str, slot: int) -> WorkerEntry:
    return WorkerEntry(run.path, worker_id, slot, Hooks(is_taken_away, why_ended, ends_at, (*_STANDBY, str(run.path))))


def router_request(spec: DeploymentSpec, run: RunDirectory) -> JobRequest:
    """The router's job. Pure."""
    return request_of(
        spec.router,
        name=name_of(run, ROUTER),
        role=ROUTER,
        entry=RouterEntry(run.path),
        log_folder=run.logs_of(ROUTER),
        time_s=spec.router_time_s,
        signal_s=_ROUTER_SIGNAL_S,
    )


@dataclass(frozen=True)
class Walltime:
    """A job's walltime limit in seconds, and the least that Slurm may shorten it to; None: it may not."""

    limit_s: int
    least_s: int | None = None

    @classmethod
    def of(cls, limit: float, least: float | None) -> "Walltime":
        """The same in whole seconds, rounded up."""
        return cls(math.ceil(limit), None if least is None else math.ceil(least))


def worker_request(
    spec: DeploymentSpec, run: RunDirectory, worker_id: str, slot: int, walltime: Walltime | None = None
) -> JobRequest:
    """The job of one worker. Pure.

    Args:
        worker_id: POOL-SERIAL.
        slot: its number among the workers that live at the same time, see `DeploymentSpec.slots`.
        walltime: its limit, where that is not the pool's.
    """
    pool = spec.pool_of(worker_id)
    given = walltime or Walltime(pool.time_s, pool.time_min_s)
    return request_of(
        pool,
        name=name_of(run, worker_id),
        role=worker_id,
        entry=_worker_entry(run, worker_id, slot),
        log_folder=run.logs_of(worker_id),
        time_s=given.limit_s,
        time_min_s=given.least_s,
        slurm={**pool.slurm, "no-requeue": True} if pool.backfill else pool.slurm,
        nodes=pool.nodes,
        gpus_per_node=pool.gpus_per_node,
        signal_s=pool.drain_seconds,
        env=pool.env,
    )


def requests(spec: DeploymentSpec, run: RunDirectory, serials: Mapping[str, int]) -> Iterator[JobRequest]:
    """The jobs that a new deployment begins with, the router's first. Pure.

    Args:
        serials: the first serial of each pool that no worker has had; a pool that is missing begins with 0.
    """
    yield router_request(spec, run)
    following = dict(serials)
    for slot, pool in enumerate(spec.slots()):
        serial = following.get(pool.name, 0)
        following[pool.name] = serial + 1
        yield worker_request(spec, run, f"{pool.name}-{serial}", slot)


def dry_run(spec: DeploymentSpec, launcher: Launcher) -> Iterator[str]:
    """Exactly what `submit` would hand over, job by job. The model is taken as written: nothing is fetched."""
    require_launcher(spec, launcher.name)
    run = RunDirectory.named(spec.name)
    asked = requests(spec, run, run.read_serials())
    for index, request in enumerate(asked):
        blank = "\n" if index else ""
        engine = "" if request.role == ROUTER else preview(spec, spec.pool_of(request.role))
        yield f"{blank}# ---- {request.role} ----\n{launcher.render(request)}{engine}"
