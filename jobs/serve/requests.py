"""The jobs of a deployment, as requests to a launcher."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ...core.job import JobRequest, Launcher, RequeueableEntry
from ...core.process import accept_any_text
from ...core.python import module_argv
from ...core.rundir import RunDirectory
from ...core.spec import DeploymentSpec
from ...nodes.agent.entry import WorkerEntry
from ..launch.request import request_of

ROUTER = "router"
_ROUTER_SIGNAL_S = 30


@dataclass(frozen=True)
class RouterEntry(RequeueableEntry):
    """The router of one deployment. submitit pickles it."""

    run_path: Path

    def __call__(self) -> None:
        """Serve until told to stop. Raises RouterError where it cannot."""
        from ...router.main import run_router

        accept_any_text()
        run_router(RunDirectory(self.run_path))

    def argv(self) -> Sequence[str]:
        """The command line that runs the same router, for a machine without Slurm."""
        return module_argv("slurminfer.router", str(self.run_path))


def router_request(spec: DeploymentSpec, run: RunDirectory) -> JobRequest:
    """The router's job. Pure."""
    return request_of(
        spec.router,
        name=f"{spec.name}-{ROUTER}",
        role=ROUTER,
        entry=RouterEntry(run.path),
        log_folder=run.logs_of(ROUTER),
        time_s=spec.router_time_s,
        signal_s=_ROUTER_SIGNAL_S,
    )


def worker_request(spec: DeploymentSpec, run: RunDirectory, worker_id: str, slot: int) -> JobRequest:
    """The job of one worker. Pure.

    Args:
        worker_id: POOL-SERIAL.
        slot: its number among the workers that the spec asks for, see `DeploymentSpec.slots`.
    """
    pool = spec.pool_of(worker_id)
    return request_of(
        pool,
        name=f"{spec.name}-{worker_id}",
        role=worker_id,
        entry=WorkerEntry(run.path, worker_id, slot),
        log_folder=run.logs_of(worker_id),
        time_s=pool.time_s,
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
    run = RunDirectory.named(spec.name)
    asked = requests(spec, run, run.read_serials())
    for index, request in enumerate(asked):
        blank = "\n" if index else ""
        yield f"{blank}# ---- {request.role} ----\n{launcher.render(request)}"
