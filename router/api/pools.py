"""What /status.json and /metrics tell of pools and of the controller that decides how many workers each has."""

import time
from collections import Counter
from typing import Any

import msgspec

from ...core.records import ROUTER, PoolRecord, WorkerState
from ...core.workers.ids import pool_name, role_of
from ..fleet.outlook import clock_time, is_asleep
from .sources import Sources

_MOST_DECISIONS = 20


class PoolStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One pool."""

    name: str
    model: str
    wanted: int | None  # workers; None where no controller says it
    ready: int
    present: int  # workers that have a job, whether it waits or runs
    is_asleep: bool  # it has no worker because no request needs one
    gave_up: bool  # no worker is started until a user changes something
    reason: str  # why it has fewer workers than are wanted


def pools(sources: Sources) -> list[PoolStatus]:
    """Every pool of the spec."""
    workers, outlooks, now = sources.registry.all(), sources.outlooks(), time.time()
    ready = Counter(pool_name(role) for role in {role_of(worker.id) for worker in workers if worker.choosable})
    living = {role_of(worker.id) for worker in workers if worker.record.state is not WorkerState.GONE}
    present = Counter(pool_name(role) for role in living | sources.queue().jobs if role != ROUTER)
    found = []
    for pool in sources.spec.pool:
        record, outlook = sources.controller.pool(pool.name), outlooks.get(pool.name)
        reason = outlook.reason if outlook is not None else ""
        found.append(
            PoolStatus(
                name=pool.name,
                model=sources.spec.model_of(pool).served_name,
                wanted=None if record is None else record.wanted,
                ready=ready[pool.name],
                present=present[pool.name],
                is_asleep=is_asleep(record) and not present[pool.name],
                gave_up=record is not None and record.gave_up,
                reason=reason or _waits(record, ready[pool.name], now),
            )
        )
    return found


def controller(sources: Sources) -> dict[str, Any] | None:
    """What the controller has written last, the latest decision first. None where there is none."""
    record = sources.controller.last
    if record is None:
        return None
    return {
        "is_silent": sources.controller.is_silent,
        "trouble": record.trouble,
        "decisions": [msgspec.to_builtins(one) for one in reversed(record.decisions[-_MOST_DECISIONS:])],
    }


def _waits(record: PoolRecord | None, ready: int, now: float) -> str:
    if record is None or not record.waits or ready >= (record.wanted or 0):
        return ""
    return record.waits + ("" if record.waits_until is None else f", until {clock_time(record.waits_until, now)}")
