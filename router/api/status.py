"""GET /status.json: what the status page shows."""

import time
from typing import Any

import msgspec
from aiohttp import web

from ...core.batches import BatchRecord
from ...core.records import QueuedJob
from ...core.spec.values import parse_time
from ..control.counters import Counters
from ..fleet.models import QUEUED, ExpectedWorker, ModelState, expected_workers, requeued
from ..fleet.worker import Worker
from ..tenants.tenant import Priority
from . import models, pools, tenants
from .caller import Caller
from .sources import Sources
from .workers import seconds_left


def status(sources: Sources, caller: Caller) -> web.Response:
    """The deployment at a glance: models, workers, queue, counts, and the tenants that the caller may see."""
    now, queued, counters = time.time(), sources.reports.queued(), sources.reports.counters()
    spec, workers = sources.spec, sources.registry.all()
    walltimes = {pool.name: parse_time(pool.time) for pool in spec.pool}
    found: dict[str, Any] = {
        "deployment": spec.name,
        "endpoint": f"{sources.endpoint()}/v1",
        "tls": spec.router.tls,
        "time": now,
        "tenant": caller.tenant,
        "is_admin": caller.is_admin,
        "models": [_model(model, now) for model in models.states_of(sources)],
        "workers": [_worker(worker, sources, walltimes.get(worker.record.pool), now) for worker in workers],
        "expected_workers": [_expected(one, now) for one in expected_workers(spec, workers, sources.queue(), now)],
        "pools": msgspec.to_builtins(pools.pools(sources)),
        "controller": pools.controller(sources),
        "queue": {priority.name.lower(): queued.get(priority.name.lower(), 0) for priority in Priority},
        **_counts(counters),
        "ejections": sum(worker.ejections for worker in workers),
        "batches": [_batch(record) for record in sources.batches.all()] if caller.is_admin else [],
        "tenants": tenants.entries(sources, caller),
    }
    return web.json_response(found)


def _model(model: ModelState, now: float) -> dict[str, Any]:
    """Times are seconds from now: until it is ready, if it is starting; until its job starts, if it is queued."""
    return {
        "name": model.name,
        "state": model.state,
        "time_left_s": _from_now(model.ready_at, now),
        "starts_in_s": _from_now(model.starts_at, now),
        "reason": model.reason,
        "obstacle": model.obstacle,
        "workers": model.workers,
    }


def _worker(worker: Worker, sources: Sources, walltime_s: int | None, now: float) -> dict[str, Any]:
    """`walltime_s` is what jobs of its pool ask for. One whose job waits in the queue again is queued."""
    record = worker.record
    found = {
        "id": worker.id,
        "pool": record.pool,
        "model": record.model,
        "engine": record.engine,
        "host": record.host,
        "state": worker.standing,
        "healthy": worker.healthy,
        "reason": worker.reason,
        "ends_at": worker.ends_at,
        "seconds_left": seconds_left(worker, now),
        "walltime_s": None if worker.ends_at is None else walltime_s,
        "in_flight": sources.in_flight(worker.slot),
        "capacity": worker.capacity,
        "tokens_per_s": worker.load.tokens_per_s,
        "ejected": worker.trust.is_ejected,
        "ejections": worker.ejections,
    }
    waiting = requeued(worker, sources.queue(), now)
    return found if waiting is None else found | _queued(waiting, now)


def _queued(job: QueuedJob, now: float) -> dict[str, Any]:
    return {
        "state": QUEUED,
        "host": "",
        "seconds_left": None,
        "starts_in_s": _from_now(job.starts_at, now),
        "reason": job.reason,
        "obstacle": job.obstacle,
    }


def _expected(worker: ExpectedWorker, now: float) -> dict[str, Any]:
    return {
        "id": worker.id,
        "pool": worker.pool,
        "model": worker.model,
        "state": worker.state,
        "starts_in_s": _from_now(worker.starts_at, now),
        "reason": worker.reason,
        "obstacle": worker.obstacle,
    }


def _batch(record: BatchRecord) -> dict[str, Any]:
    """Rows and rates as of `written_at`; times left are seconds from then."""
    found: dict[str, Any] = msgspec.to_builtins(record)
    return {name: value for name, value in found.items() if name != "version"}


def _counts(counters: Counters) -> dict[str, int]:
    failovers: dict[str, int] = {}
    for (outcome, _), count in counters.failovers.items():
        Counters.count(failovers, outcome, count)
    return {
        "requests": sum(counters.requests.values()),
        "failed_requests": sum(count for (_, status), count in counters.requests.items() if status >= 500),
        "refused": sum(counters.refused.values()),
        "retries": counters.retries,
        "failovers": failovers.get("succeeded", 0),
        "failed_failovers": failovers.get("failed", 0),
        "prompt_tokens": counters.prompt_tokens,
        "cached_tokens": counters.cached_tokens,
        "generated_tokens": counters.generated_tokens,
    }


def _from_now(at: float | None, now: float) -> float | None:
    return None if at is None else round(max(0.0, at - now), 1)
