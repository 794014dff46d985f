"""What a controller may want and see, in few words."""

from typing import Any

from slurminfer.jobs.fleet.rules.actions import Action, Cancel, Drain, Submit, Wait, Want
from slurminfer.jobs.fleet.rules.decide import decide
from slurminfer.jobs.fleet.rules.desired import Desired, PoolPlan
from slurminfer.jobs.fleet.rules.observed import Demand, Ended, Member, Observed, Past, Reserved, Stage

NOW = 1_800_000_000.0
HOUR = 3600.0


def plan(workers: int = 2, **fields: Any) -> PoolPlan:
    """A pool `w` with a fixed number of workers, a day each."""
    given = {"name": "w", "model": "m", "fewest": workers, "most": workers, "initial": workers, "time_s": 24 * HOUR}
    return PoolPlan(**{**given, **fields})


def member(number: int, stage: Stage = Stage.READY, **fields: Any) -> Member:
    """Worker `w-NUMBER`, in its stage for an hour, with many hours left."""
    given = {
        "id": f"w-{number}",
        "pool": "w",
        "job": str(number),
        "slot": number,
        "stage": stage,
        "since": NOW - HOUR,
        "submitted_at": NOW - HOUR,
        "ends_at": None if stage is Stage.PENDING else NOW + 20 * HOUR,
        "limit_s": 24 * HOUR,
        "capacity": 8,
    }
    return Member(**{**given, **fields})


def reserved(starts_at: float) -> dict[str, Reserved]:
    """A maintenance of a day that takes all nodes of the pool `w`."""
    return {"w": Reserved(starts_at=starts_at, ends_at=starts_at + 24 * HOUR)}


def ended(number: int, ago_s: float, **fields: Any) -> Ended:
    """A worker that has failed so long ago, and was submitted half a minute before."""
    given = {"id": f"w-{number}", "pool": "w", "at": NOW - ago_s, "submitted_at": NOW - ago_s - 30, "cause": "no GPU"}
    return Ended(**{**given, **fields})


def look(*members: Member, demand: Demand | None = None, past: Past | None = None, **fields: Any) -> Observed:
    """What is seen of the pool `w`."""
    return Observed(
        members=members,
        demand=None if demand is None else {"w": demand},
        past={"w": past or Past(load_s=100.0)},
        **fields,
    )


def decided(
    pool: PoolPlan, *members: Member, pinned: int | None = None, now: float = NOW, **seen: Any
) -> dict[type, list[Any]]:
    """The actions for the pool `w`, by kind."""
    desired = Desired((pool,), {} if pinned is None else {"w": pinned})
    return by_kind(decide(desired, look(*members, **seen), now))


def by_kind(actions: list[Action]) -> dict[type, list[Any]]:
    """Actions by kind, with an empty list for the kinds that there are none of."""
    found: dict[type, list[Any]] = {kind: [] for kind in (Submit, Drain, Cancel, Want, Wait)}
    for action in actions:
        found[type(action)].append(action)
    return found
