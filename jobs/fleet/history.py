"""What a controller remembers of each pool: the part of `fleet.json` that it needs again."""

import math
import time
from collections.abc import Sequence

import msgspec

from ...core.records import EndedWorker, PoolRecord
from .look import Looker
from .rules.desired import PoolPlan
from .rules.observed import Ended, Member, Past, Stage

_MOST_ENDED = 50  # of a pool
_MOST_TIMES = 20
# Of the latest times, so many are shorter than what is expected of the next one.
_QUANTILE = 0.9


def past_of(record: PoolRecord, now: float) -> Past:
    """What the decisions need of it. `now`: Unix time."""
    return Past(
        wanted=record.wanted,
        enough_since=record.enough_since,
        load_s=expected(record.load_s),
        wait_s=expected(record.wait_s) or 0.0,
        capacity=record.capacity,
        hours_today=record.hours if record.day == _today(now) else 0.0,
        day_ends_at=_midnight(now),
        retry_asked_at=record.retry_asked_at,
        ended=tuple(
            Ended(
                id=one.id,
                pool=one.pool,
                at=one.at,
                submitted_at=one.submitted_at,
                ready_s=one.ready_s,
                is_wanted=one.is_wanted,
                by_scheduler=one.by_scheduler,
                is_final=one.is_final,
                was_cut=one.was_cut,
                has_missed=one.has_missed,
                cause=one.cause,
            )
            for one in record.ended
        ),
    )


def with_times(record: PoolRecord, looker: Looker, members: Sequence[Member]) -> PoolRecord:
    """Add what workers have shown: how long they have waited in the queue and taken to load, as far as that was seen
    from begin to end, and how many requests they compute at once."""
    loads, waits = list(record.load_s), list(record.wait_s)
    for member in members:
        seen = looker.seen[member.job]
        if seen.load_s is not None:
            loads.append(round(seen.load_s, 1))
            seen.load_s = None
        if seen.waited_s is not None:
            waits.append(round(seen.waited_s, 1))
            seen.waited_s = None
    capacity = next((one.capacity for one in reversed(members) if one.stage is Stage.READY), record.capacity)
    return msgspec.structs.replace(
        record, load_s=tuple(loads[-_MOST_TIMES:]), wait_s=tuple(waits[-_MOST_TIMES:]), capacity=capacity
    )


def with_hours(
    record: PoolRecord, plan: PoolPlan, members: Sequence[Member], now: float, elapsed_s: float
) -> PoolRecord:
    """Add what the running workers have used in `elapsed_s` seconds. At midnight it begins anew."""
    running = sum(member.stage is not Stage.PENDING for member in members)
    today = _today(now)
    before = record.hours if record.day == today else 0.0
    return msgspec.structs.replace(record, day=today, hours=before + running * plan.units * elapsed_s / 3600)


def with_ended(record: PoolRecord, ended: EndedWorker) -> PoolRecord:
    """Add a worker that has ended."""
    return msgspec.structs.replace(record, ended=(*record.ended, ended)[-_MOST_ENDED:])


def expected(times: Sequence[float]) -> float | None:
    """How long the next one is expected to take after these: nearly the longest. None: nobody knows."""
    ordered = sorted(times)
    return ordered[min(len(ordered) - 1, math.floor(_QUANTILE * len(ordered)))] if ordered else None


def _midnight(now: float) -> float:
    """The end of the day, local time."""
    day = time.localtime(now)
    return time.mktime((day.tm_year, day.tm_mon, day.tm_mday + 1, 0, 0, 0, 0, 0, -1))


def _today(now: float) -> str:
    return time.strftime("%F", time.localtime(now))


def moved(record: PoolRecord, by: float) -> PoolRecord:
    """The same with all times of this machine's clock moved by so many seconds, because that was set."""
    ended = tuple(
        msgspec.structs.replace(one, at=one.at + by, submitted_at=one.submitted_at + by) for one in record.ended
    )
    return msgspec.structs.replace(
        record,
        enough_since=None if record.enough_since is None else record.enough_since + by,
        retry_asked_at=record.retry_asked_at + by,
        ended=ended,
    )
