"""The endpoints of the router.

POST /v1/chat/completions, /v1/completions and every other POST /v1/...   to a worker
GET  /v1/models      what the workers serve           GET /workers   the workers, one by one
GET  /health         without the key: only whether    GET /metrics   Prometheus, also with a key of its own
"""

import time

import msgspec
from aiohttp import web
from aiohttp.typedefs import Handler

from ...core.net.http_body import BodyError
from ...core.net.http_limits import ConnectionGuard
from ...core.openai import REQUEST_ID_HEADER
from ..fleet.registry import Registry
from ..metrics import Metrics, path_label
from ..relay.failover import Relay
from .access import Keys, Origins, given_key, name_request, request_id
from .answers import failure, model_card, no_worker, unknown_model, worker_view
from .bodies import Bodies, wait_with_continue

_CLIENT_CLOSED_REQUEST = 499  # nginx's number for a client that hung up
# Paths below /v1/ of which it is known what they take; of others, the workers know.
_POST_ONLY = frozenset(
    {"chat/completions", "completions", "embeddings", "messages", "moderations", "rerank", "responses", "score"}
    | {"audio/speech", "audio/transcriptions", "audio/translations", "images/generations"}
)


class _Envelope(msgspec.Struct):
    """The one field of a request that the router reads; the others are none of its business."""

    model: str | None = None


class Api:
    """The handlers, and what they share."""

    def __init__(
        self, keys: Keys, origins: Origins, guard: ConnectionGuard, registry: Registry, relay: Relay, metrics: Metrics
    ) -> None:
        self._keys, self._origins, self._guard = keys, origins, guard
        self._registry, self._relay, self._metrics = registry, relay, metrics
        self._bodies = Bodies()

    def app(self) -> web.Application:
        """The aiohttp application with all routes of the router. Its server must not decompress bodies."""
        app = web.Application(middlewares=[self._observe, self._authenticate])
        app.on_response_prepare.append(self._sign)
        app.router.add_get("/health", self._health)
        app.router.add_get("/metrics", self._show_metrics)
        app.router.add_get("/workers", self._workers)
        app.router.add_get("/v1/models", self._models)
        app.router.add_get("/v1/models/{model:.+}", self._model)
        for path in ("/v1/chat/completions", "/v1/completions", r"/v1/{path:[\w/-]+}"):
            app.router.add_post(path, self._forward, expect_handler=wait_with_continue)
        app.router.add_route("*", "/v1/{path:.*}", self._no_such_path, expect_handler=wait_with_continue)
        return app

    async def _sign(self, request: web.Request, response: web.StreamResponse) -> None:
        """Add what every answer carries, whoever made it."""
        response.headers[REQUEST_ID_HEADER] = request_id(request)
        self._origins.mark(request, response)

    @web.middleware
    async def _observe(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Count and time every request, and give aiohttp's own errors OpenAI's shape."""
        name_request(request)
        began, path = time.monotonic(), path_label(request)
        status = _CLIENT_CLOSED_REQUEST
        try:
            response = await handler(request)
            status = response.status
        except web.HTTPException as error:
            status = error.status
            response = failure(status, f"{request.method} {request.path[:200]}: {error.reason}")
            if "Allow" in error.headers:
                response.headers["Allow"] = error.headers["Allow"]
        finally:
            self._metrics.requests.labels(path, status).inc()
            self._metrics.duration.labels(path).observe(time.monotonic() - began)
        return response

    @web.middleware
    async def _authenticate(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Let nothing without a key pass but `/health` and what browsers ask before a page's request."""
        if request.method == "OPTIONS":
            return self._origins.preflight(request)
        if self._keys.fit(request):
            self._guard.trust(request)
        elif request.path != "/health":
            what = "missing" if given_key(request) is None else "wrong"
            answer = failure(
                401, f"{what} API key: expected the header 'Authorization: Bearer KEY'", code="invalid_api_key"
            )
            answer.headers["WWW-Authenticate"] = "Bearer"
            answer.force_close()
            return answer
        return await handler(request)

    async def _forward(self, request: web.Request) -> web.StreamResponse:
        if _takes_get_only(request.match_info.get("path", "")):
            return await self._no_such_path(request)
        try:
            async with self._bodies.read(request) as body:
                return await self._forward_body(request, body)
        except BodyError as error:
            answer = failure(error.status, error.message)
            answer.force_close()  # rather than reading the rest
            return answer

    async def _forward_body(self, request: web.Request, body: bytes) -> web.StreamResponse:
        try:
            model = _model_of(request, body)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
            return failure(400, f"the request body is not a JSON object with a model name: {error}")
        if model is not None and (known := self._registry.models()) and model not in known:
            return unknown_model(model, known)
        return await self._relay.forward(request, body, model)

    async def _no_such_path(self, request: web.Request) -> web.StreamResponse:
        path = request.match_info["path"]
        if _takes_get_only(path):
            raise web.HTTPMethodNotAllowed(request.method, ["GET"])
        if path in _POST_ONLY:
            raise web.HTTPMethodNotAllowed(request.method, ["POST"])
        raise web.HTTPNotFound

    async def _models(self, request: web.Request) -> web.Response:
        names = sorted({worker.record.model for worker in self._registry.choosable()})
        if not names:
            return no_worker(self._registry.counts(), None)
        cards = [model_card(name, self._registry.choosable(name)) for name in names]
        return web.json_response({"object": "list", "data": cards})

    async def _model(self, request: web.Request) -> web.Response:
        name, known = request.match_info["model"], self._registry.models()
        if name not in known:
            return unknown_model(name, known)
        return web.json_response(model_card(name, self._registry.serving(name)))

    async def _health(self, request: web.Request) -> web.Response:
        counts = self._registry.counts()
        if not self._keys.fit(request):
            return web.json_response({"status": "ok"}) if counts["ready"] else failure(503, "no worker is ready")
        if counts["ready"]:
            return web.json_response({"status": "ok", "workers": counts})
        return no_worker(counts, None)

    async def _workers(self, request: web.Request) -> web.Response:
        return web.json_response({"workers": [worker_view(worker) for worker in self._registry.all()]})

    async def _show_metrics(self, request: web.Request) -> web.Response:
        return web.Response(body=self._metrics.render(), headers={"Content-Type": "text/plain; version=0.0.4"})


def _takes_get_only(path: str) -> bool:
    return path == "models" or path.startswith("models/")


def _model_of(request: web.Request, body: bytes) -> str | None:
    """The model that a request names. Forms, which carry audio, are not read.

    Raises DecodeError, RecursionError, UnicodeDecodeError.
    """
    if request.content_type.startswith("multipart/"):
        return None
    if not body.isascii():
        body.decode()  # msgspec does not look into the strings that it passes over
    return msgspec.json.decode(body, type=_Envelope).model
