"""How many workers an elastic pool should have, from its load."""

import math
from collections.abc import Sequence

import msgspec

from .desired import PoolPlan
from .observed import Demand, Member, Past, Stage

# One worker fewer is enough where the rest would be busy for this part of their capacity at most.
_BUSY = 0.7
# At most this part of the workers is taken away at once, and at most this multiple of them is there after one step up.
_FEWER, _MORE = 0.25, 2


class Wanted(msgspec.Struct, frozen=True):
    """A number of workers, and since when one fewer would have been enough, Unix time. `why` is empty for no change."""

    workers: int
    enough_since: float | None = None
    why: str = ""


def wanted(
    plan: PoolPlan,
    past: Past,
    demand: Demand | None,
    members: Sequence[Member],
    now: float,
    *,
    is_served_elsewhere: bool = False,
) -> Wanted:
    """The number of workers that the pool should have now. Without a reading of the load it stays what it was.

    `is_served_elsewhere`: another pool has workers for the same requests, which may be full for a moment only.
    """
    current = min(max(plan.initial if past.wanted is None else past.wanted, plan.fewest), plan.most)
    if demand is None or not plan.is_elastic:
        return Wanted(current, past.enough_since)
    load = demand.in_flight + demand.waiting
    if current == 0 and demand.waiting and not is_served_elsewhere:
        return Wanted(1, None, f"{requests_wait(demand)} and there is no worker")
    capacity = capacity_of(members, past)
    more = _more(plan, demand, current, load, capacity)
    if more is not None:
        return more
    if _is_first_coming(members):
        return Wanted(current)
    return _fewer(plan, past, demand, current, load, capacity or 1, now)


def _more(plan: PoolPlan, demand: Demand, current: int, load: int, capacity: int | None) -> Wanted | None:
    if demand.waited_s <= plan.target_queue_s:
        return None
    # Until one worker has said what it can do, nobody knows how many are needed.
    needed = 1 if capacity is None else min(plan.most, math.ceil(load / capacity), max(1, current * _MORE))
    if needed <= current:
        return None
    why = f"{requests_wait(demand)}, the oldest for {demand.waited_s:.0f} s (target {plan.target_queue_s:g} s)"
    return Wanted(needed, None, why)


def _fewer(plan: PoolPlan, past: Past, demand: Demand, current: int, load: int, capacity: int, now: float) -> Wanted:
    enough = _enough(plan, load, capacity)
    if enough >= current:
        return Wanted(current)
    since = now if past.enough_since is None else min(now, past.enough_since)
    if current == 1:  # requests that came and went between two looks were computed by this worker
        since = max(since, now - demand.idle_s)
    if now - since < plan.idle_s:
        return Wanted(current, since)
    fewer = max(enough, current - max(1, int(current * _FEWER)))
    if fewer == 0:
        return Wanted(fewer, now, f"no request for {now - since:.0f} s")
    why = f"requests in flight or waiting: {load}; {plan.count(fewer)} would have been enough for {now - since:.0f} s"
    return Wanted(fewer, now, why)


def _enough(plan: PoolPlan, load: int, capacity: int) -> int:
    """Workers that the present load needs, with some room."""
    needed = math.ceil(load / (_BUSY * capacity))
    return min(max(needed, plan.fewest), plan.most)


def _is_first_coming(members: Sequence[Member]) -> bool:
    """Whether workers wait or load and none is ready: a pool that cannot serve yet is not idle."""
    stages = {member.stage for member in members}
    return Stage.READY not in stages and not stages.isdisjoint((Stage.PENDING, Stage.STARTING))


def capacity_of(members: Sequence[Member], past: Past) -> int | None:
    """Requests that one worker computes at once, at least one; None where no worker has told it yet."""
    found = max((member.capacity for member in members if member.stage is Stage.READY), default=past.capacity)
    return None if found is None else max(1, found)


def requests_wait(demand: Demand) -> str:
    """How many wait, in words."""
    return "1 request waits" if demand.waiting == 1 else f"{demand.waiting} requests wait"
