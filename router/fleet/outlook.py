"""Whether pools without a worker get one, when, and why not: what requests wait for, and what clients are told."""

import time
from collections.abc import Mapping, Sequence
from enum import Enum

from ...core.records import PoolRecord, WorkerState
from ...core.spec.deployment import DeploymentSpec
from ..control.messages import Outlook
from .controller import ControllerReport
from .models import QUEUED, STARTING, ExpectedWorker, expected_workers, requeued
from .queue import Queue
from .worker import Worker


class Prospect(Enum):
    """What a request can hope for in a pool."""

    READY = "ready"
    COMING = "coming"  # a worker comes, or nothing is known
    ASLEEP = "asleep"  # one would be started
    NONE = "none"


def prospects(
    spec: DeploymentSpec, workers: Sequence[Worker], queue: Queue, controller: ControllerReport, now: float
) -> dict[str, Prospect]:
    """By pool. `now`: Unix time."""
    served = {worker.record.pool for worker in workers if worker.choosable}
    coming = _coming(spec, workers, queue, now)
    return {
        pool.name: Prospect.READY
        if pool.name in served
        else _prospect(controller.pool(pool.name), coming.get(pool.name, ()))
        for pool in spec.pool
    }


def _prospect(record: PoolRecord | None, coming: Sequence[ExpectedWorker]) -> Prospect:
    if _may_come(record) is False or (coming and all(one.obstacle for one in coming)):
        return Prospect.NONE
    if is_asleep(record):
        return Prospect.ASLEEP
    return Prospect.COMING if record is None or record.may_come else Prospect.NONE


def outlooks(
    spec: DeploymentSpec, workers: Sequence[Worker], queue: Queue, controller: ControllerReport, now: float
) -> dict[str, Outlook]:
    """By pool, as far as anything is known. `now`: Unix time."""
    served = {worker.record.pool for worker in workers if worker.choosable}
    pools = [pool.name for pool in spec.pool]
    coming = _coming(spec, workers, queue, now) if not served.issuperset(pools) else {}
    found = {}
    for pool in spec.pool:
        name, record = pool.name, controller.pool(pool.name)
        reason = "" if name in served else _reason(record, coming.get(name, ()), now)
        may_come = _may_come(record)
        outlook = Outlook(may_come=may_come, reason=reason, may_sleep=bool(may_come) and pool.bounds[0] == 0)
        if outlook != Outlook():
            found[name] = outlook
    return found


def is_asleep(record: PoolRecord | None) -> bool:
    """Whether a pool has no worker because no request needs one."""
    return record is not None and record.is_asleep


def clock_time(at: float, now: float) -> str:
    """A Unix time for people, in this machine's time zone: 14:20, or with the date where it is not today."""
    local, today = time.localtime(at), time.localtime(now)
    return time.strftime("%H:%M" if local[:3] == today[:3] else "%Y-%m-%d %H:%M", local)


def _may_come(record: PoolRecord | None) -> bool | None:
    if record is None:
        return None
    if record.may_come:
        return None if record.gave_up else True
    return False if record.gave_up else None


def _coming(
    spec: DeploymentSpec, workers: Sequence[Worker], queue: Queue, now: float
) -> Mapping[str, list[ExpectedWorker]]:
    """By pool, the workers that start or whose jobs wait."""
    found: dict[str, list[ExpectedWorker]] = {}
    for one in expected_workers(spec, workers, queue, now):
        found.setdefault(one.pool, []).append(one)
    for worker in workers:
        record, job = worker.record, requeued(worker, queue, now)
        if job is not None:
            one = ExpectedWorker(worker.id, record.pool, record.model, QUEUED, job.starts_at, job.reason, job.obstacle)
        elif worker.standing == WorkerState.STARTING:
            one = ExpectedWorker(worker.id, record.pool, record.model, STARTING)
        else:
            continue
        found.setdefault(record.pool, []).append(one)
    return found


def _reason(record: PoolRecord | None, coming: Sequence[ExpectedWorker], now: float) -> str:
    """Why a pool has no worker that could be asked; empty where that is not known."""
    if any(one.state == STARTING for one in coming):
        return "one is starting"
    queued = [one for one in coming if one.state == QUEUED]
    if queued:
        return _queued(queued, now)
    if record is None:
        return ""
    if record.gave_up:
        return f"none is started any more: {record.waits or 'its workers have failed again and again'}"
    if record.waits:
        until = record.waits_until
        return f"none is started now: {record.waits}" + ("" if until is None else f", until {clock_time(until, now)}")
    if is_asleep(record):
        return "there was no request for it; the next one starts one"
    if record.wanted == 0:
        return "no workers of it are wanted, as 'slurminfer scale' has said"
    return "one is to be started" if record.may_come else ""


def _queued(queued: Sequence[ExpectedWorker], now: float) -> str:
    can_start = [one for one in queued if not one.obstacle]
    if not can_start:
        return f"one is waiting in Slurm's queue and does not start as it is: {queued[0].obstacle}"
    first = min(can_start, key=lambda one: (one.starts_at is None, one.starts_at))
    why = f" ({first.reason})" if first.reason else ""
    is_known = first.starts_at is not None and first.starts_at > now
    when = f", expected to start at {clock_time(first.starts_at or 0.0, now)}" if is_known else ""
    return f"one is waiting in Slurm's queue{why}{when}"
