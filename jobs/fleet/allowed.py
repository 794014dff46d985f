"""The longest walltime limit that Slurm allows the workers of each pool that leaves a choice."""

from collections.abc import Callable, Mapping

from ...core.spec.deployment import DeploymentSpec
from ...core.spec.pool import PoolSpec
from ...slurm.limits import Partition, longest_allowed_s, named, partitions, qos_limits
from .seldom import Seldom

_EVERY_S = 3600.0  # administrators change them seldom


class Allowed:
    """Asks Slurm now and then for the limits of partitions and QOS. What it said last counts until it says another.

    Args:
        ask_partitions: the cluster's partitions by name.
        ask_qos: MaxWall in seconds of those QOS that have one.
    """

    def __init__(
        self,
        ask_partitions: Callable[[], Mapping[str, Partition]] = partitions,
        ask_qos: Callable[[], Mapping[str, int]] = qos_limits,
    ) -> None:
        self._ask_partitions, self._ask_qos = ask_partitions, ask_qos
        self._seldom = Seldom(self._ask, _EVERY_S, "limits of walltime")
        self._partitions: Mapping[str, Partition] = {}
        self._qos: Mapping[str, int] = {}

    def longest_s(self, spec: DeploymentSpec, now: float) -> dict[str, float]:
        """By pool with `time_min`, the longest limit in seconds; pools without a bound are missing."""
        pools = [pool for pool in spec.pool if pool.time_min_s is not None]
        if pools:
            self._seldom.refresh(now)
        found = {pool.name: self._of(pool) for pool in pools}
        return {name: longest for name, longest in found.items() if longest is not None}

    def _ask(self) -> None:
        self._partitions = self._ask_partitions()
        self._qos = self._ask_qos()

    def _of(self, pool: PoolSpec) -> float | None:
        return longest_allowed_s(named(self._partitions, pool.partition), self._qos, str(pool.slurm.get("qos", "")))
