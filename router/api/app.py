"""The endpoints of the router.

POST /v1/chat/completions, /v1/completions and every other POST /v1/...   to a worker
GET  /v1/models      what the workers serve           GET /workers   the workers, one by one
GET  /health         without the key                  GET /metrics   Prometheus
"""

import hmac
import time

import msgspec
from aiohttp import web
from aiohttp.typedefs import Handler

from ..fleet.registry import Registry
from ..metrics import Metrics, path_label
from ..relay.failover import Relay
from .answers import failure, model_card, no_worker, unknown_model, worker_view

MAX_BODY_BYTES = 64 * 1024 * 1024
_CLIENT_CLOSED_REQUEST = 499  # nginx's number for a client that hung up


class _Envelope(msgspec.Struct):
    """The one field of a request that the router reads; the others are none of its business."""

    model: str | None = None


class Api:
    """The handlers, and what they share."""

    def __init__(self, key: str, registry: Registry, relay: Relay, metrics: Metrics) -> None:
        self._authorization = f"Bearer {key}".encode()
        self._registry, self._relay, self._metrics = registry, relay, metrics

    def app(self) -> web.Application:
        """The aiohttp application with all routes of the router."""
        app = web.Application(client_max_size=MAX_BODY_BYTES, middlewares=[self._observe, self._authenticate])
        app.router.add_get("/health", self._health)
        app.router.add_get("/metrics", self._show_metrics)
        app.router.add_get("/workers", self._workers)
        app.router.add_get("/v1/models", self._models)
        app.router.add_get("/v1/models/{model:.+}", self._model)
        for path in ("/v1/chat/completions", "/v1/completions", r"/v1/{path:[\w/-]+}"):
            app.router.add_post(path, self._forward)
        return app

    @web.middleware
    async def _observe(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Count and time every request, and give aiohttp's own errors OpenAI's shape."""
        began, path = time.monotonic(), path_label(request)
        status = _CLIENT_CLOSED_REQUEST
        try:
            response = await handler(request)
            status = response.status
        except web.HTTPException as error:
            status = error.status
            response = failure(status, f"{request.method} {request.path}: {error.reason}")
        finally:
            self._metrics.requests.labels(path, status).inc()
            self._metrics.duration.labels(path).observe(time.monotonic() - began)
        return response

    @web.middleware
    async def _authenticate(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        given = request.headers.get("Authorization", "").encode(errors="surrogateescape")
        if request.path != "/health" and not hmac.compare_digest(given, self._authorization):
            what = "wrong" if given else "missing"
            return failure(
                401, f"{what} API key: expected the header 'Authorization: Bearer KEY'", code="invalid_api_key"
            )
        return await handler(request)

    async def _forward(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        try:
            model = _model_of(request, body)
        except (msgspec.DecodeError, RecursionError) as error:
            return failure(400, f"the request body is not a JSON object with a model name: {error}")
        if model is not None and (known := self._registry.models()) and model not in known:
            return unknown_model(model, known)
        return await self._relay.forward(request, body, model)

    async def _models(self, request: web.Request) -> web.Response:
        names = sorted({worker.record.model for worker in self._registry.choosable()})
        if not names:
            return no_worker(self._registry.counts(), None)
        return web.json_response({"object": "list", "data": [model_card(name) for name in names]})

    async def _model(self, request: web.Request) -> web.Response:
        name, known = request.match_info["model"], self._registry.models()
        return web.json_response(model_card(name)) if name in known else unknown_model(name, known)

    async def _health(self, request: web.Request) -> web.Response:
        counts = self._registry.counts()
        if counts["ready"]:
            return web.json_response({"status": "ok", "workers": counts})
        return no_worker(counts, None)

    async def _workers(self, request: web.Request) -> web.Response:
        return web.json_response({"workers": [worker_view(worker) for worker in self._registry.all()]})

    async def _show_metrics(self, request: web.Request) -> web.Response:
        return web.Response(body=self._metrics.render(), headers={"Content-Type": "text/plain; version=0.0.4"})


def _model_of(request: web.Request, body: bytes) -> str | None:
    """The model that a request names. Forms, which carry audio, are not read. Raises DecodeError, RecursionError."""
    if request.content_type.startswith("multipart/"):
        return None
    return msgspec.json.decode(body, type=_Envelope).model
