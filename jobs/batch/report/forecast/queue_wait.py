"""When the jobs of a spec would start, as Slurm's `sbatch --test-only` says. Nothing is submitted."""

import time
from collections.abc import Callable

from .....core.errors import SlurmError
from .....core.job import JobRequest
from .....core.rundir import RunDirectory
from .....core.spec.deployment import DeploymentSpec
from .....core.spec.pool import PoolSpec
from .....slurm.forecast import Forecast
from ....serve.requests import worker_request
from ..interval import Interval
from ..words import about

# Slurm looks for jobs past their limits every half minute, gives them KillWait (half a minute) to end, and plans the
# queue anew every half minute: so long after the start that it has said, a job may start without anything new.
_SLACK_S = 120.0
_NOW_S = 60.0


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
        _words(pool, lambda name=pool.name: ask(worker_request(spec, run, f"{name}-0", 0)), clock())  # type: ignore[misc]
        for pool in spec.pool
    )


def _words(of: PoolSpec, ask: Callable[[], Forecast], now: float) -> str:
    pool = of.name
    try:
        found = ask()
    except SlurmError as error:
        return f"pool {pool}: unknown ({error})"
    if found.starts_at is None:
        return f"pool {pool}: Slurm would not start a worker: {found.reason}"
    if found.starts_at - now <= _NOW_S:
        return f"pool {pool}: Slurm would start a worker now"
    if of.backfill:
        return f"pool {pool}: Slurm plans no start now; holes in its schedule are used as they come"
    wait = about(wait_of(found.starts_at - now))
    return (
        f"pool {pool}: Slurm would start a worker in {wait}: sooner if jobs end before their limits, later if more "
        "urgent ones come"
    )


def wait_of(planned_s: float) -> Interval:
    """A wait by the one that Slurm plans, where all jobs run up to their limits and none comes before ours. Pure."""
    return Interval(low=0.0, likely=planned_s, high=planned_s + _SLACK_S)
