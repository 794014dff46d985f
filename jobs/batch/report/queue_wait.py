"""When the jobs of a spec would start, as Slurm's `sbatch --test-only` says. Nothing is submitted."""

import time
from collections.abc import Callable

from ....core.errors import SlurmError
from ....core.job import JobRequest
from ....core.rundir import RunDirectory
from ....core.spec.deployment import DeploymentSpec
from ....slurm.forecast import Forecast
from ...serve.requests import worker_request
from .words import duration


def queue_wait(
    spec: DeploymentSpec, ask: Callable[[JobRequest], Forecast], clock: Callable[[], float] = time.time
) -> str:
    """In words, of one worker of each pool.

    Args:
        spec: of the deployment.
        ask: when a job would start; raises SlurmError.
        clock: Unix time.
    """
    run = RunDirectory.named(spec.name)
    return "; ".join(
        _words(pool.name, lambda name=pool.name: ask(worker_request(spec, run, f"{name}-0", 0)), clock())  # type: ignore[misc]
        for pool in spec.pool
    )


def _words(pool: str, ask: Callable[[], Forecast], now: float) -> str:
    try:
        found = ask()
    except SlurmError as error:
        return f"pool {pool}: unknown ({error})"
    if found.starts_at is None:
        return f"pool {pool}: Slurm would not start a worker: {found.reason}"
    wait_s = found.starts_at - now
    if wait_s <= 60:
        return f"pool {pool}: Slurm would start a worker now"
    return f"pool {pool}: Slurm would start a worker in about {duration(wait_s)}, by what runs and waits now"
