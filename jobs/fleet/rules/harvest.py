"""Workers of a backfill pool: jobs as long as the holes in the scheduler's plan, while there is work for them.

Such a pool is never to stand in the queue before other people's jobs. So a job is submitted only where the scheduler
has said, after the one before it was submitted, that it would start now; and one that does not start is cancelled.
"""

import itertools
import math
from collections.abc import Iterator, Sequence

from .actions import Action, Cancel, Submit, Wait
from .desired import USUAL_LOAD_S, PoolPlan
from .failures import rounds
from .observed import Demand, Member, Past, PoolForecast, Stage, Start
from .scaling import Wanted, capacity_of, requests_wait

# A start that is forecast within this time is one now: a round of the scheduler may take so long.
NOW_S = 60.0
# A job that has not started by then, although it was to start now, is cancelled.
STARTS_WITHIN_S = 180.0
# After that none is tried for so long, twice as long after each further one in a row, up to the longest; and for an
# hour one at a time.
_MISSED_S, _LONGEST_S, _CAREFUL_S = 300.0, 3600.0, 3600.0
# The same where jobs were taken away before they had served, from the second one in a row on.
_TAKEN_S = 60.0
# When to ask again where nothing would start now.
_ASK_AGAIN_S = 60.0
_NEARLY_NONE = 1e-6


def wanted(plan: PoolPlan, past: Past, demand: Demand | None, members: Sequence[Member], now: float) -> Wanted:
    """How many workers the work is enough for. Without a reading of the load that stays what it was."""
    current = min(plan.initial if past.wanted is None else past.wanted, plan.most)
    if demand is None:
        return Wanted(current, past.enough_since)
    load = demand.in_flight + demand.waiting
    enough = _enough(plan, past, demand, members)
    if enough > current:
        return Wanted(enough, None, _words(demand))
    if enough == current:
        return Wanted(current)
    since = now if past.enough_since is None else min(now, past.enough_since)
    if now - since < plan.idle_s:
        return Wanted(current, since)
    why = f"requests in flight or waiting: {load}" if load else "there is no work"
    return Wanted(enough, None, f"{why}; {plan.count(enough)} would have been enough for {now - since:.0f} s")


def lacking(plan: PoolPlan, past: Past, demand: Demand | None, members: Sequence[Member]) -> int:
    """How many more workers the work is enough for at this moment: none where the load is not known."""
    return 0 if demand is None else max(0, _enough(plan, past, demand, members) - len(members))


def late(members: Sequence[Member], now: float) -> Iterator[Action]:
    """Cancel jobs that were to start at once, and wait."""
    for member in members:
        if member.stage is Stage.PENDING and now - member.since >= STARTS_WITHIN_S:
            yield Cancel(worker=member.id, why="Slurm has not started it, although it was to start at once")


def is_now(start: Start) -> bool:
    """Whether a job would start at once when that was forecast."""
    return start.wait_s is not None and start.wait_s <= NOW_S


def patience_s(members: Sequence[Member], now: float) -> float | None:
    """How old a forecast may be where a worker is missing, in seconds; None where none is submitted now."""
    if any(member.stage is Stage.PENDING for member in members):
        return None
    latest = max((member.submitted_at for member in members), default=-math.inf)
    return max(0.0, min(_ASK_AGAIN_S, now - latest))


def submissions(
    plan: PoolPlan, past: Past, members: Sequence[Member], forecast: PoolForecast | None, missing: int, now: float
) -> Iterator[Action]:
    """Submit some of the missing workers, all with the longest limit that the scheduler would start now.

    As many as run already, so that a wrong forecast costs little: 1, 1, 2, 4 and so on; and no more than there is room
    for, where that is known.

    Args:
        members: those that were not told to end.
        forecast: the scheduler's word on limits from `time_min_s` to `time_s`; None: there is none.
        missing: workers.
    """
    if not plan.has_walltime:
        for _ in range(missing):
            yield Submit(pool=plan.name, time_s=plan.time_s, why=_missing(plan, missing))
        return
    if not missing or any(member.stage is Stage.PENDING for member in members):
        return
    missed_at, paused_until = _missed(past)
    if now < paused_until:
        why = "Slurm did not start the latest job, although there seemed to be a hole for it"
        yield Wait(pool=plan.name, why=why, until=paused_until)
        return
    if now < (taken_until := _taken_until(past)):
        why = "Slurm has taken the latest jobs away before they served"
        yield Wait(pool=plan.name, why=why, until=taken_until)
        return
    if forecast is None or forecast.asked_at < max((member.submitted_at for member in members), default=-math.inf):
        yield Wait(pool=plan.name, why="Slurm has not said yet what it would start now", until=now + _ASK_AGAIN_S)
        return
    start = _longest_now(plan, past, forecast, now)
    if start is None:
        yield Wait(pool=plan.name, why=_why_not(forecast), until=now + _ASK_AGAIN_S)
        return
    at_once = 1 if now - missed_at < _CAREFUL_S else max(1, len(members))
    room = missing if start.room is None else start.room
    for _ in range(min(missing, at_once, room)):
        yield Submit(
            pool=plan.name,
            time_s=start.time_s,  # and no less: backfill of Slurm 22.05 gives a job the least that it accepts
            why=f"{_missing(plan, missing)}; Slurm would start one of {start.time_s / 60:.0f} minutes now",
            predicted_s=_predicted_s(plan, past, members, start.time_s, now),
        )


def _enough(plan: PoolPlan, past: Past, demand: Demand, members: Sequence[Member]) -> int:
    """Workers that the load fills. Until one has told its capacity, nobody knows for how many it is enough."""
    load, capacity = demand.in_flight + demand.waiting, capacity_of(members, past)
    return min(plan.most, load, 1) if capacity is None else min(plan.most, math.ceil(load / capacity))


def _longest_now(plan: PoolPlan, past: Past, forecast: PoolForecast, now: float) -> Start | None:
    """The longest of the limits with which a job would start now, and not load for longer than it serves."""
    return max(
        (
            start
            for start in forecast.starts
            if start.wait_s is not None
            and forecast.asked_at + start.wait_s <= now + NOW_S
            and _use_s(plan, past, start.time_s) >= _load_s(past)
        ),
        key=lambda start: start.time_s,
        default=None,
    )


def _use_s(plan: PoolPlan, past: Past, time_s: float) -> float:
    """For so long a worker of that limit serves."""
    return max(0.0, time_s - _load_s(past) - plan.drain_s)


def _predicted_s(plan: PoolPlan, past: Past, members: Sequence[Member], time_s: float, now: float) -> float:
    """For so long a worker of that limit is expected to serve, if it is taken away as often as those before it.

    With `r` losses a second, it lives through its load with the probability exp(-r load), and then serves for
    (1 - exp(-r use)) / r seconds on average.
    """
    use_s, rate = _use_s(plan, past, time_s), _losses_a_second(past, members, now)
    if rate * use_s < _NEARLY_NONE:
        return use_s
    return math.exp(-rate * _load_s(past)) * (1 - math.exp(-rate * use_s)) / rate


def _losses_a_second(past: Past, members: Sequence[Member], now: float) -> float:
    """Of the latest workers."""
    ended = [one for one in past.ended if not one.has_missed]
    lived_s = sum(one.at - one.submitted_at for one in ended) + sum(now - one.submitted_at for one in members)
    return sum(one.was_cut for one in ended) / lived_s if lived_s > 0 else 0.0


def _load_s(past: Past) -> float:
    return USUAL_LOAD_S if past.load_s is None else past.load_s


def _why_not(forecast: PoolForecast) -> str:
    """Why nothing is submitted, in words that stay the same while that is so."""
    if not forecast.starts:
        return "Slurm has not said what it would start now"
    shortest = min(forecast.starts, key=lambda start: start.time_s)
    if shortest.wait_s is None:
        return f"Slurm would refuse the job: {shortest.reason}"
    return f"there is no hole in Slurm's schedule for a job of {shortest.time_s / 60:.0f} minutes or more now"


def _missed(past: Past) -> tuple[float, float]:
    """When a job was cancelled last that had not started as forecast, and until when none is tried after it."""
    missed_at = max((one.at for one in past.ended if one.has_missed), default=-math.inf)
    latest = itertools.takewhile(lambda one: one.has_missed, sorted(past.ended, key=lambda one: -one.at))
    pause_s = min(_LONGEST_S, _MISSED_S * 2 ** min(10, max(0, sum(1 for _ in latest) - 1)))
    return missed_at, missed_at + pause_s


def _taken_until(past: Past) -> float:
    """Until when none is tried because jobs were taken away before they had served, again and again."""
    latest = sorted(past.ended, key=lambda one: -one.at)
    taken = list(itertools.takewhile(lambda one: one.was_cut and one.by_scheduler and not one.ready_s, latest))
    if (further := rounds(taken) - 1) < 1:
        return -math.inf
    return taken[0].at + min(_LONGEST_S, _TAKEN_S * 2.0 ** min(10, further - 1))


def _missing(plan: PoolPlan, missing: int) -> str:
    return f"{plan.count(missing)} missing for the work that there is"


def _words(demand: Demand) -> str:
    if demand.waiting:
        return requests_wait(demand)
    return f"requests in flight: {demand.in_flight}"
