"""GET /workers: every worker with all that is known of it. For the deployment's own key."""

import time
from typing import Any

from aiohttp import web

from ...core.spec.pool import PoolSpec
from ..fleet.worker import ASSUMED_CAPACITY, Worker
from .sources import Sources


def workers(sources: Sources) -> web.Response:
    """All workers by id."""
    rates, now = sources.reports.rates(), time.time()
    entries = [entry(worker, sources, rates.get(worker.slot, (None, None)), now) for worker in sources.registry.all()]
    return web.json_response({"workers": entries, "may_be_added": may_be_added(sources)})


def may_be_added(sources: Sources) -> int:
    """Requests at once that workers of backfill pools could compute which are not there.

    A batch asks for as many, because the controller starts such workers only for requests that wait.
    """
    return sum(_missing(sources, pool) for pool in sources.spec.pool if pool.backfill)


def _missing(sources: Sources, pool: PoolSpec) -> int:
    ready = [worker for worker in sources.registry.all() if worker.record.pool == pool.name and worker.choosable]
    record = sources.controller.pool(pool.name)
    if record is None or record.gave_up:
        return 0
    return max(0, pool.bounds[1] - len(ready)) * (record.capacity or ASSUMED_CAPACITY)


def entry(worker: Worker, sources: Sources, rates: tuple[float | None, float | None], now: float) -> dict[str, Any]:
    """One worker. Rates are in tokens/s, times in Unix seconds."""
    record, load = worker.record, worker.load
    return {
        "id": worker.id,
        "state": worker.standing,
        "url": record.url,
        "in_flight": sources.in_flight(worker.slot),
        "capacity": record.capacity,
        "model": record.model,
        "healthy": worker.healthy,
        "reason": worker.reason,
        "pool": record.pool,
        "engine": record.engine,
        "host": record.host,
        "job": record.job,
        "epoch": record.epoch,
        "ends_at": worker.ends_at,
        "seconds_left": seconds_left(worker, now),
        "move_by": worker.move_by,
        "load_s": record.load_s,
        "running": load.running,
        "waiting": load.waiting,
        "tokens_per_s": load.tokens_per_s,
        "cache_tokens": load.cache_tokens,
        "cache_usage": load.cache_usage,
        "cache_hit_rate": load.hit_rate,
        "prefill_rate": rates[0],
        "decode_rate": rates[1],
        "ejected": worker.trust.is_ejected,
        "ejections": worker.ejections,
    }


def seconds_left(worker: Worker, now: float) -> float | None:
    """Seconds until the worker's walltime limit."""
    return None if worker.ends_at is None else round(max(0.0, worker.ends_at - now), 1)
