"""What the jobs of a deployment hold while a batch runs, and what that costs in an hour."""

from collections.abc import Mapping

import msgspec

from ....core.site.prices import PriceTable
from ....core.spec.deployment import DeploymentSpec
from ...receipt.receipt import Hours, cost_of, price_of


class Resources(msgspec.Struct, frozen=True, kw_only=True):
    """Of all jobs together."""

    gpus: float
    cpus: float
    nodes: float
    cost_of_hour: float | None = None  # None: a partition has no price
    currency: str | None = None


def resources(spec: DeploymentSpec, workers: Mapping[str, int] | None, prices: PriceTable | None) -> Resources:
    """What the router's job and those of so many workers hold. Pure.

    Args:
        spec: the deployment's.
        workers: by pool; None: those that the deployment begins with.
        prices: the site's, if there are any.
    """
    held = [(spec.router.partition, Hours(cpu=spec.router.cpus_per_task, node=1.0))]
    for pool in spec.pool:
        count = pool.initial_workers if workers is None else workers.get(pool.name, 0)
        sharing = pool.workers_per_job if isinstance(pool.workers_per_job, int) else 1
        jobs = count / sharing
        given = Hours(
            gpu=jobs * pool.nodes * pool.gpus_per_node,
            cpu=jobs * pool.nodes * pool.cpus_per_task,
            node=jobs * pool.nodes,
        )
        held += [(pool.partition, given)] if count else []
    costs = [cost_of(hours, price_of(prices, partition or "")) for partition, hours in held]
    known = [cost for cost in costs if cost is not None]
    total = sum((hours for _, hours in held), Hours())
    return Resources(
        gpus=total.gpu,
        cpus=total.cpu,
        nodes=total.node,
        cost_of_hour=sum(known) if len(known) == len(costs) else None,
        currency=None if prices is None else prices.currency,
    )
