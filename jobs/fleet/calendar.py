"""Until when the nodes of each pool are free of reservations, so that jobs end before a maintenance begins."""

from collections.abc import Callable, Mapping

from ...core.spec.deployment import DeploymentSpec
from ...core.spec.pool import PoolSpec
from ...slurm.limits import Partition, named, partitions
from ...slurm.reservations import Reservation, blocking, free_again, longest_limit_s, reservations
from .rules.observed import Reserved
from .seldom import Seldom

_EVERY_S = 300.0  # reservations are made hours or days before they begin


class Calendar:
    """Asks Slurm now and then. What it said last counts until it says something else.

    Args:
        ask_reservations: all reservations of the cluster.
        ask_partitions: its partitions by name.
    """

    def __init__(
        self,
        ask_reservations: Callable[[], tuple[Reservation, ...]] = reservations,
        ask_partitions: Callable[[], Mapping[str, Partition]] = partitions,
    ) -> None:
        self._ask_reservations, self._ask_partitions = ask_reservations, ask_partitions
        self._seldom = Seldom(self._ask, _EVERY_S, "reservations")
        self._reservations: tuple[Reservation, ...] = ()
        self._partitions: Mapping[str, Partition] = {}

    def reserved(self, spec: DeploymentSpec, now: float) -> dict[str, Reserved]:
        """By pool, when reservations next take away nodes that its jobs need; pools without one are missing."""
        self._seldom.refresh(now)
        found = {}
        for pool in spec.pool:
            reserved = self._reserved(pool, now)
            if reserved is not None:
                found[pool.name] = reserved
        return found

    def _ask(self) -> None:
        self._reservations = self._ask_reservations()
        self._partitions = self._ask_partitions() if self._reservations else {}

    def _reserved(self, pool: PoolSpec, now: float) -> Reserved | None:
        own = pool.slurm.get("reservation")
        blocked = blocking(self._reservations, named=own if isinstance(own, str) else None)
        nodes = {name for one in named(self._partitions, pool.partition) for name in one.node_names}
        left = longest_limit_s(blocked, nodes, now, pool.nodes) if blocked and nodes else None
        if left is None:
            return None
        return Reserved(starts_at=now + left, ends_at=free_again(blocked, nodes, now + left, pool.nodes))
