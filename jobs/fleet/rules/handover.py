"""When a worker gets a successor: early enough before its walltime limit, and not all of a pool at the same time."""

import math
from collections.abc import Mapping, Sequence

import msgspec

from .desired import USUAL_LOAD_S, PoolPlan
from .link import Choice
from .observed import Member, Past, Stage

# A successor is submitted so much earlier than is expected to be needed.
_MARGIN, _LEAST_MARGIN_S = 0.25, 30.0
# Not later than this part of its time before its end, up to a bound: a job that waits costs nothing, one that starts
# early only the time to load, and the queue may be longer than it was.
_LEAST_PART, _LEAST_LEAD_S = 1 / 12, 7200.0
# Of all workers of a pool, this part is replaced at the same time at most, or what is needed to replace all in time.
_AT_ONCE = 1 / 8
# Slurm may tell a worker to drain so much earlier than was asked for (--signal).
_SIGNAL_EARLY_S = 60.0
# No worker gets a successor before it has had this part of the time before it drains.
_OWN_PART = 0.5
# A successor has been ready for so long when its predecessor is released: the router has noticed it by then.
SETTLED_S = 5.0


def successors(members: Sequence[Member]) -> dict[str, Member]:
    """By the id of a worker that still stays, the one that takes over from it."""
    staying = {member.id for member in members if member.stage is not Stage.LEAVING}
    return {one.replaces: one for one in members if one.replaces in staying and one.stage is not Stage.LEAVING}


def at_once(plan: PoolPlan, past: Past, members: Sequence[Member]) -> int:
    """How many of these workers may be in replacement at the same time."""
    if not members:
        return 1
    own_s = sum(time_s(plan, member) for member in members) / len(members) * (1 - _OWN_PART)
    return max(1, math.ceil(len(members) * min(1.0, max(_AT_ONCE, start_s(past) / own_s))))


def with_forecast(past: Past, choice: Choice | None) -> Past:
    """What to expect: the queue as it was for the latest workers, or as Slurm forecasts it if that is longer."""
    wait = choice.wait_s if choice is not None else None
    is_longer = wait is not None and past.wait_s < wait < math.inf
    return msgspec.structs.replace(past, wait_s=wait) if is_longer else past


def start_s(past: Past) -> float:
    """Seconds from the submission of a worker until it is expected to serve, with a margin."""
    needed = past.wait_s + (USUAL_LOAD_S if past.load_s is None else past.load_s)
    return needed + max(_LEAST_MARGIN_S, _MARGIN * needed)


def lead_s(past: Past, limit: float) -> float:
    """So many seconds before a worker of that walltime limit begins to drain, its successor is submitted."""
    return max(start_s(past) + _SIGNAL_EARLY_S, min(_LEAST_PART * limit, _LEAST_LEAD_S))


def due(plan: PoolPlan, past: Past, members: Sequence[Member]) -> Mapping[str, float]:
    """By worker, when its successor is to be submitted, as Unix time.

    So early that it serves before the worker begins to drain, and one after the other: those that end together get
    successors at different times, which then end at different times.
    """
    ending = sorted(
        (member for member in members if member.ends_at is not None and member.stage in (Stage.READY, Stage.STARTING)),
        key=_end,
        reverse=True,
    )
    gap, at, found = start_s(past) / at_once(plan, past, ending), math.inf, {}
    for member in ending:
        lead = lead_s(past, time_s(plan, member))
        at = min(_end(member) - plan.drain_s - lead, at - gap)
        found[member.id] = max(at, earliest(plan, member))
    return found


def earliest(plan: PoolPlan, member: Member) -> float:
    """Unix time before which a worker gets no successor; infinite where it needs none."""
    if member.stage not in (Stage.READY, Stage.STARTING):
        return math.inf
    return _end(member) - plan.drain_s - (time_s(plan, member) - plan.drain_s) * (1 - _OWN_PART)


def time_s(plan: PoolPlan, member: Member) -> float:
    """A worker's walltime limit in seconds, which may be shorter than its pool's."""
    return min(plan.time_s, math.inf if member.limit_s is None else member.limit_s)


def _end(member: Member) -> float:
    return math.inf if member.ends_at is None else member.ends_at
