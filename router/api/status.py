"""GET /status.json: what the status page shows."""

import time
from typing import Any

from aiohttp import web

from ..control.counters import Counters
from ..fleet.models import ModelState
from ..fleet.worker import Worker
from ..tenants.tenant import Priority
from . import models, tenants
from .caller import Caller
from .sources import Sources
from .workers import seconds_left


def status(sources: Sources, caller: Caller) -> web.Response:
    """The deployment at a glance: models, workers, queue, counts; for the deployment's own key also the tenants."""
    now, queued, counters = time.time(), sources.reports.queued(), sources.reports.counters()
    found: dict[str, Any] = {
        "deployment": sources.spec.name,
        "endpoint": f"{sources.endpoint()}/v1",
        "models": [_model(model, now) for model in models.states_of(sources)],
        "workers": [_worker(worker, sources, now) for worker in sources.registry.all()],
        "queue": {priority.name.lower(): queued.get(priority.name.lower(), 0) for priority in Priority},
        **_counts(counters),
    }
    if caller.is_admin:
        found["tenants"] = tenants.entries(sources, caller)
    return web.json_response(found)


def _model(model: ModelState, now: float) -> dict[str, Any]:
    """Times are seconds from now: until it is ready, if it is starting; until its job starts, if it is queued."""
    return {
        "name": model.name,
        "state": model.state,
        "time_left_s": _from_now(model.ready_at, now),
        "starts_in_s": _from_now(model.starts_at, now),
        "reason": model.reason,
        "workers": model.workers,
    }


def _worker(worker: Worker, sources: Sources, now: float) -> dict[str, Any]:
    record = worker.record
    return {
        "id": worker.id,
        "pool": record.pool,
        "model": record.model,
        "engine": record.engine,
        "host": record.host,
        "state": worker.standing,
        "healthy": worker.healthy,
        "reason": worker.reason,
        "ends_at": record.ends_at,
        "seconds_left": seconds_left(worker, now),
        "in_flight": sources.in_flight(worker.slot),
        "capacity": worker.capacity,
        "tokens_per_s": worker.load.tokens_per_s,
    }


def _counts(counters: Counters) -> dict[str, int]:
    failovers: dict[str, int] = {}
    for (outcome, _), count in counters.failovers.items():
        Counters.count(failovers, outcome, count)
    return {
        "requests": sum(counters.requests.values()),
        "retries": counters.retries,
        "failovers": failovers.get("succeeded", 0),
        "failed_failovers": failovers.get("failed", 0),
        "prompt_tokens": counters.prompt_tokens,
        "cached_tokens": counters.cached_tokens,
        "generated_tokens": counters.generated_tokens,
    }


def _from_now(at: float | None, now: float) -> float | None:
    return None if at is None else round(max(0.0, at - now), 1)
