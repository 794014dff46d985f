"""More workers for a pool: those that are missing, and successors of those whose time ends."""

from collections.abc import Iterator

from . import handover, harvest
from .actions import Action, Submit, Wait
from .failures import Trial, trial
from .observed import Stage
from .pool import HUNG_S, Pool


def submitted(pool: Pool, missing: int) -> Iterator[Action]:
    """Submit what is missing, and successors, as far as failures, budget, queue and maintenance allow."""
    asked = [("", f"{pool.plan.count(missing)} missing")] * missing + _succession(pool)
    if not asked:
        return
    room = _room(pool)
    if isinstance(room, Wait):
        yield room
        return
    for replaces, why in asked[:room]:
        chosen = pool.next_link(replaces)
        if chosen is not None:
            words = f"{why}; {chosen.why}" if chosen.why else why
            yield Submit(
                pool=pool.plan.name,
                time_s=chosen.time_s,
                time_min_s=chosen.time_min_s,
                why=words,
                replaces=replaces,
            )


def harvested(pool: Pool, missing: int) -> Iterator[Action]:
    """The same for a backfill pool, as far as there is work at this moment and holes for it."""
    if not missing:
        return
    room = _room(pool)
    if isinstance(room, Wait):
        yield room
        return
    if pool.pinned is None:
        missing = min(missing, harvest.lacking(pool.plan, pool.past, pool.demand, pool.staying))
    forecast, missing = pool.observed.forecasts.get(pool.plan.name), min(missing, room)
    yield from harvest.submissions(pool.plan, pool.past, pool.staying, forecast, missing, pool.now)


def _succession(pool: Pool) -> list[tuple[str, str]]:
    """Workers that need a successor now, the most urgent first, and why."""
    needed: list[tuple[float, str, str]] = []
    due = handover.due(pool.plan, pool.past, pool.staying)
    for member in pool.staying:
        if member.id in pool.successors:
            continue
        if pool.is_hung(member):
            needed.append((0.0, member.id, f"{member.id} has produced no token for {HUNG_S:.0f} s"))
        elif member.id in due and due[member.id] <= pool.now:
            left = (member.ends_at or pool.now) - pool.now
            ends = f"ends in {left:.0f} s" if left > 0 else "is over"
            needed.append((due[member.id], member.id, f"the time of {member.id} {ends}"))
    under_way = sum(one.stage is not Stage.READY for one in pool.successors.values())
    return [(worker, why) for _, worker, why in sorted(needed)][: max(0, _at_once(pool) - under_way)]


def _at_once(pool: Pool) -> int:
    single = [member for member in pool.staying if member.id not in pool.successors]
    return handover.at_once(pool.plan, pool.past, single)


def _obstacle(pool: Pool, found: Trial) -> Wait | None:
    """Why no worker can be submitted now; None if one can."""
    name, now = pool.plan.name, pool.now
    if found.gave_up:
        return Wait(pool=name, why=found.gave_up, gave_up=True)
    if found.not_before > now:
        return Wait(pool=name, why=f"the last {pool.plan.noun} has failed", until=found.not_before)
    stuck = next((member for member in pool.staying if member.obstacle), None)
    if stuck is not None:
        return Wait(pool=name, why=f"the job of {stuck.id} cannot start: {stuck.obstacle}")
    if pool.next_link() is None:
        reserved = pool.outlook.reserved
        why = "the nodes are reserved, for a maintenance perhaps, now or too soon for a worker to be of use"
        return Wait(pool=name, why=why, until=reserved.ends_at if reserved else None)
    return None


def _room(pool: Pool) -> int | Wait:
    """How many jobs may be submitted now, or why none can."""
    found = trial(pool.past, pool.staying, pool.now)
    obstacle = _obstacle(pool, found)
    if obstacle is not None:
        return obstacle
    coming = [member for member in pool.staying if member.stage in (Stage.PENDING, Stage.STARTING)]
    if found.is_single:
        return max(0, 1 - len(coming))
    return max(0, pool.plan.most_pending - sum(member.stage is Stage.PENDING for member in coming))
