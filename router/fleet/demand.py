"""What requests ask of each pool: those in flight, those that wait, and since when there was none."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence

import msgspec

from ...core.spec.deployment import DeploymentSpec
from ...core.spec.pool import PoolSpec
from ..control.messages import LaneLoad
from .outlook import Prospect

_Lane = tuple[str | None, tuple[str, ...]]


class PoolLoad(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked of one pool. Times are seconds."""

    in_flight: int
    waiting: int  # requests that any of its workers could serve
    waited_s: float  # for so long the oldest of these has waited
    idle_s: float  # since the last request that was computed and that the pool could serve; 0 while there is one


class _Waiting(msgspec.Struct, frozen=True):
    """Requests that wait in a lane of a relay, the oldest since the time `since`."""

    lane: _Lane
    is_batch: bool  # their priority
    number: int
    since: float


class Demand:
    """What relays have reported of their lanes. A lane that no relay has told of was last used when this was made.

    Args:
        clock: seconds, monotonic.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._began_at = clock, clock()
        self._waiting: dict[int, list[_Waiting]] = {}  # by relay
        self._used_at: dict[_Lane, float] = {}

    def hear(self, relay: int, lanes: Sequence[LaneLoad]) -> None:
        """Take what a relay says of all its lanes."""
        now = self._clock()
        self._waiting[relay] = [waiting for lane in lanes for waiting in _waiting(lane, now)]
        for lane in lanes:
            key = lane.model, lane.pools
            self._used_at[key] = max(self._used_at.get(key, self._began_at), now - lane.idle_s)

    def ended(self, relay: int) -> None:
        """Note that nobody waits any more in a relay that has ended."""
        self._waiting.pop(relay, None)

    def of_pools(
        self,
        spec: DeploymentSpec,
        in_flight: Mapping[str, int],
        served_at: Mapping[str, float],
        prospects: Mapping[str, Prospect],
    ) -> dict[str, PoolLoad]:
        """What is asked of each pool of the spec.

        A pool with `spill_after` is asked only by requests of lanes in which one has waited for longer than that, and
        by those that it has got. Where requests may go to backfill pools and to others, those of priority batch ask the
        backfill pools alone, and the others the other pools. Of several pools that sleep, requests ask the first one
        that could serve them, and none while another pool starts a worker for them.

        Args:
            spec: of the deployment.
            in_flight: by pool, requests at its workers.
            served_at: by pool, when one of its workers has answered last, on this clock.
            prospects: by pool, whether it has a worker or gets one.
        """
        now = self._clock()
        waiting: dict[str, list[_Waiting]] = {pool.name: [] for pool in spec.pool}
        for one in (one for of_relay in self._waiting.values() for one in of_relay):
            for pool in _asked(one, spec, prospects):
                if now - one.since >= (spec.spill_after_of(pool) or 0.0):
                    waiting[pool.name].append(one)
        return {
            pool.name: self._of_pool(
                spec, pool, waiting[pool.name], in_flight.get(pool.name, 0), served_at.get(pool.name, 0.0), now
            )
            for pool in spec.pool
        }

    def _of_pool(
        self,
        spec: DeploymentSpec,
        pool: PoolSpec,
        waiting: Sequence[_Waiting],
        in_flight: int,
        served_at: float,
        now: float,
    ) -> PoolLoad:
        used = [served_at, self._began_at]
        if spec.spill_after_of(pool) is None:
            used += [at for lane, at in self._used_at.items() if _may_take(spec, pool, lane)]
        return PoolLoad(
            in_flight=in_flight,
            waiting=sum(one.number for one in waiting),
            waited_s=max((now - one.since for one in waiting), default=0.0),
            idle_s=0.0 if in_flight or waiting else max(0.0, now - max(used)),
        )


def _asked(waiting: _Waiting, spec: DeploymentSpec, prospects: Mapping[str, Prospect]) -> list[PoolSpec]:
    """The pools whose workers are asked for by these requests."""
    pools = [pool for pool in spec.pool if _asks(waiting, spec, pool)]
    if any(prospects[pool.name] is Prospect.READY for pool in pools):
        return pools
    asleep: dict[float | None, list[PoolSpec]] = {}  # pools for spill-over have their own time to be asked
    for pool in pools:
        if prospects[pool.name] is Prospect.ASLEEP:
            asleep.setdefault(spec.spill_after_of(pool), []).append(pool)
    coming = {spec.spill_after_of(pool) for pool in pools if prospects[pool.name] is Prospect.COMING}
    woken = [_first(found) for after, found in asleep.items() if after not in coming]
    return [pool for pool in pools if prospects[pool.name] is not Prospect.ASLEEP or pool in woken]


def _first(pools: Sequence[PoolSpec]) -> PoolSpec:
    """The first pool of the spec that has the default model, else the first."""
    return next((pool for pool in pools if pool.model is None), pools[0])


def _waiting(lane: LaneLoad, now: float) -> Iterator[_Waiting]:
    key = lane.model, lane.pools
    if lane.waiting:
        yield _Waiting(key, False, lane.waiting, now - lane.waited_s)
    if lane.batch_waiting:
        yield _Waiting(key, True, lane.batch_waiting, now - lane.batch_waited_s)


def _asks(waiting: _Waiting, spec: DeploymentSpec, pool: PoolSpec) -> bool:
    """Whether workers of the pool are to be there for these requests."""
    if not _may_take(spec, pool, waiting.lane):
        return False
    others = [other for other in spec.pool if other.backfill != pool.backfill]
    return pool.backfill == waiting.is_batch or not any(_may_take(spec, other, waiting.lane) for other in others)


def _may_take(spec: DeploymentSpec, pool: PoolSpec, lane: _Lane) -> bool:
    """Whether the pool is among those that requests of a lane may go to."""
    return lane[0] in (None, spec.model_of(pool).served_name) and (not lane[1] or pool.name in lane[1])
