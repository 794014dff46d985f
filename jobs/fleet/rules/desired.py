"""What a deployment's spec asks of its fleet, pool by pool."""

import math
from collections.abc import Mapping

import msgspec

from ....core.records import ROUTER
from ....core.spec.deployment import DeploymentSpec
from ....core.spec.pool import PoolSpec

# Until the first worker of a pool has said how long it took to its first token.
USUAL_LOAD_S = 120.0
# A worker that was told to end has so much longer than its pool's drain_seconds.
_OBEYS_S = 120.0


class PoolPlan(msgspec.Struct, frozen=True, kw_only=True):
    """One pool. Times are seconds.

    `fewest` and `most` are equal where the number of workers is fixed.
    """

    name: str
    noun: str = "worker"  # what its members are called
    model: str | None = None  # that it serves; other pools may serve it too
    fewest: int
    most: int
    initial: int
    time_s: float  # walltime limit of a worker
    time_min_s: float | None = None  # the shortest limit that it may be given; None: always time_s
    allowed_s: float | None = None  # the longest limit that Slurm's partition and QOS allow; None: nobody knows one
    has_walltime: bool = True  # False where no scheduler ends workers
    drain_s: float = 60.0
    obeys: bool = True  # False where members that have a successor go on to the end of their time
    target_queue_s: float = 10.0
    idle_s: float = 300.0
    hours_per_day: float | None = None
    units: int = 1  # GPUs of a worker, or its nodes where it has none: an hour of a worker is so many hours
    most_pending: int = 10
    is_backfill: bool = False  # its workers run in holes of the scheduler's plan only, see harvest.py

    def count(self, number: int) -> str:
        """A number of its members in words, such as "2 workers"."""
        return f"{number} {self.noun}" + ("" if number == 1 else "s")

    @property
    def longest_s(self) -> float:
        """The longest limit that a worker may be given. A fixed one that is not allowed is for Slurm to refuse."""
        if self.time_min_s is None or self.allowed_s is None:
            return self.time_s
        return max(self.time_min_s, min(self.time_s, self.allowed_s))

    @property
    def leaves_s(self) -> float:
        """A member that was told to end has ended after so long, if it obeys."""
        return self.drain_s + _OBEYS_S if self.obeys else math.inf

    @property
    def is_elastic(self) -> bool:
        """Whether the number of workers follows the load."""
        return self.fewest < self.most


class Desired(msgspec.Struct, frozen=True):
    """The whole deployment. `pinned`: numbers of workers that a user has asked for with `slurminfer scale`."""

    pools: tuple[PoolPlan, ...]
    pinned: Mapping[str, int] = {}


def desired_of(
    spec: DeploymentSpec, pinned: Mapping[str, int], *, has_walltime: bool, allowed: Mapping[str, float] | None = None
) -> Desired:
    """What a spec asks for; the router is a pool of one.

    Args:
        spec: the deployment's.
        pinned: numbers of workers that a user has asked for, by pool.
        has_walltime: whether its jobs are Slurm's.
        allowed: the longest walltime limit in seconds that Slurm allows, by pool, where it is known.
    """
    plans = (_plan(spec, pool, has_walltime, (allowed or {}).get(pool.name)) for pool in spec.pool)
    return Desired((_router_plan(spec, has_walltime), *plans), dict(pinned))


def _router_plan(spec: DeploymentSpec, has_walltime: bool) -> PoolPlan:
    return PoolPlan(
        name=ROUTER,
        noun="router",
        fewest=1,
        most=1,
        initial=1,
        time_s=spec.router_time_s,
        has_walltime=has_walltime,
        obeys=False,  # the predecessor of a router serves to its end
    )


def _plan(spec: DeploymentSpec, pool: PoolSpec, has_walltime: bool, allowed_s: float | None) -> PoolPlan:
    fewest, most = pool.bounds
    return PoolPlan(
        name=pool.name,
        model=spec.model_of(pool).served_name,
        fewest=fewest,
        most=most,
        initial=pool.initial_workers,
        time_s=pool.time_s,
        time_min_s=pool.time_min_s,
        allowed_s=allowed_s,
        has_walltime=has_walltime,
        drain_s=pool.drain_seconds,
        target_queue_s=pool.target_queue_time,
        idle_s=pool.idle_time,
        hours_per_day=pool.hours_per_day,
        units=pool.nodes * (pool.gpus_per_node or 1),
        most_pending=pool.max_pending,
        is_backfill=pool.backfill,
    )
