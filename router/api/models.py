"""GET /v1/models and /v1/models/ID: what is served, as OpenAI's API tells it or, to its clients, Anthropic's."""

import time
from collections.abc import Sequence
from typing import Any

from aiohttp import web

from ..fleet.models import LIVE, ModelState, model_states
from ..fleet.outlook import is_asleep
from ..fleet.worker import Worker
from ..policies.aliases import aliases, model_behind
from .answers import failure, no_worker
from .anthropic import is_anthropic, model_info, model_list
from .caller import caller_of
from .sources import Sources


def models(sources: Sources, request: web.Request) -> web.Response:
    """All models, as long as one of them can be asked, be it that a request has to wait for a worker."""
    states = states_of(sources)
    if not any(model.state == LIVE or model.may_come for model in states):
        reason = next((model.reason for model in states if model.reason), "")
        return no_worker(sources.registry.counts(), reason)
    tenant = caller_of(request).tenant
    cards = [_card(sources, model, tenant) for model in states]
    return web.json_response(model_list(cards) if is_anthropic(request) else {"object": "list", "data": cards})


def model(sources: Sources, request: web.Request) -> web.Response:
    """One model by its name or another one, whatever its state; 404 with the valid names for one that there is not."""
    name, tenant, rules = request.match_info["model"], caller_of(request).tenant, sources.spec.router.rule
    states = {model.name: model for model in states_of(sources)}
    served = model_behind(name, rules, states, tenant) or name
    if served not in states:
        others = [alias for model in states for alias in aliases(model, rules, tenant)]
        valid = ", ".join(states) + (f"; other names for them: {', '.join(others)}" if others else "")
        message = f"no model '{name[:200]}' here; valid models: {valid}"
        return failure(404, message, param="model", code="model_not_found")
    card = _card(sources, states[served], tenant)
    if served != name:
        card |= {"id": name, "root": served}
    return web.json_response(model_info(card) if is_anthropic(request) else card)


def states_of(sources: Sources) -> list[ModelState]:
    """The models of the deployment as they are now."""
    registry, controller = sources.registry, sources.controller
    return model_states(
        sources.spec,
        registry.all(),
        sources.queue(),
        registry.load_s,
        sources.outlooks(),
        asleep={pool.name for pool in sources.spec.pool if is_asleep(controller.pool(pool.name))},
        now=time.time(),
        monotonic=time.monotonic(),
    )


def _card(sources: Sources, model: ModelState, tenant: str | None) -> dict[str, Any]:
    """What a worker says of its model, or what is known without one, and its other names for a tenant.

    `created` is that of the deployment: some engines say when they were started, or asked.
    """
    workers = sources.registry.choosable(model.name) or sources.registry.serving(model.name)
    card = _told(workers) | {"id": model.name, "created": sources.served_at, "state": model.state}
    others = aliases(model.name, sources.spec.router.rule, tenant)
    return card | ({"aliases": others} if others else {})


def _told(workers: Sequence[Worker]) -> dict[str, Any]:
    told = next((worker.card for worker in workers if worker.card is not None), {})
    return {"object": "model", "owned_by": "slurminfer"} | told
