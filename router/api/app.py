"""The supervisor's pages: whatever is not a generation request. Relays forward it here.

GET /health                  without a key: only whether      GET /workers   the workers, one by one (admin)
GET /v1/models, /v1/models/ID   what is served                GET /metrics   Prometheus (admin, or the key for it)
/v1/files, /v1/batches       OpenAI's batch API (router/batches/)
GET /v1/responses/ID          one that is kept (router/responses/)
GET /load                    what requests ask of each pool, for the controller of the fleet (admin)
GET /status.json             the deployment at a glance       GET /tenants   limits and usage
GET /openapi.json            this API, described            GET /docs      the same for people
GET /                        the same for people: a page without data, which asks for the key and then for status.json

The app listens on a socket that only this user reaches, so it believes what relays say of the caller (caller.py). They
also add what every answer has: its id, and the headers by which web pages may read it.
"""

import time
from collections.abc import Awaitable, Callable

from aiohttp import web
from aiohttp.typedefs import Handler

from ...core.net.openai import UNKNOWN_PATH
from ..endpoints import ENDPOINTS, TOKENIZER_INFO, no_such_path
from ..metrics import CONTENT_TYPE, Metrics
from ..tenants.refusal import EXPECTED_KEY, METRICS_ONLY
from . import batches, files, health, load, models, responses, status, tenants, web_page, workers
from .answers import failure
from .anthropic import with_anthropics_error
from .caller import Caller, caller_of
from .description import openapi
from .sources import Sources

Page = Callable[[web.Request], web.Response]

_CLIENT_CLOSED_REQUEST = 499  # nginx's number for a client that hung up
_MOST_BYTES = 2**20  # of a body: no page takes any
_NO_KEY_NEEDED = frozenset({"/", "/docs", "/health", "/openapi.json"})
_ADMINS_ONLY = frozenset({"/workers", "/load", "/metrics"})


class Pages:
    """The pages of one supervisor."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources
        self._metrics = Metrics(sources)

    def app(self) -> web.Application:
        """The aiohttp application with all pages. Its server is to have `handler_cancellation`."""
        sources = self._sources
        app = web.Application(middlewares=[self._observe, self._admit], client_max_size=_MOST_BYTES)
        routes: dict[str, Page] = {
            "/": web_page.WebPage("index.html").answer,
            "/docs": web_page.WebPage("docs.html").answer,
            "/health": lambda request: health.health(sources, request),
            "/v1/models": lambda request: models.models(sources, request),
            "/v1/models/{model:.+}": lambda request: models.model(sources, request),
            "/workers": lambda request: workers.workers(sources),
            "/load": lambda request: load.load(sources),
            "/metrics": self._show_metrics,
            "/status.json": lambda request: status.status(sources, caller_of(request)),
            "/openapi.json": openapi.openapi,
            "/tenants": lambda request: tenants.tenants(sources, caller_of(request)),
        }
        for path, page in routes.items():
            app.router.add_get(path, _handler(page))
        files.Files(sources.openai_batches.files).add_to(app)
        batches.Batches(sources.openai_batches).add_to(app)
        responses.Responses(sources.responses, sources.pages).add_to(app)
        app.router.add_route("*", "/v1/{path:.*}", _no_such_path)
        return app

    @web.middleware
    async def _observe(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Count and time every request, and give aiohttp's own errors OpenAI's shape."""
        began, path, status = time.monotonic(), _path_label(request), _CLIENT_CLOSED_REQUEST
        try:
            response = await handler(request)
            status = response.status
        except web.HTTPException as error:
            status = error.status
            response = _failure(request, error)
            if "Allow" in error.headers:
                response.headers["Allow"] = error.headers["Allow"]
        finally:
            counted = self._sources.pages
            counted.count(counted.requests, (path, status))
            counted.time(counted.duration, path, time.monotonic() - began)
        return with_anthropics_error(request, response)

    @web.middleware
    async def _admit(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Relays have refused whoever shows no key; who may see what is decided here."""
        caller = caller_of(request)
        if caller.tenant is None:
            if request.path in _NO_KEY_NEEDED:
                return await handler(request)
            return _unauthorized(f"missing API key: {EXPECTED_KEY}")
        is_for_metrics = self._is_for_metrics(caller)
        if is_for_metrics and request.path != "/metrics":
            return _unauthorized(METRICS_ONLY)
        if request.path in _ADMINS_ONLY and not (caller.is_admin or is_for_metrics):
            also = " and the key for metrics" if request.path == "/metrics" else ""
            message = f"{request.path} is for the deployment's own key{also}"
            return failure(403, message, code="admin_key_required")
        return await handler(request)

    def _is_for_metrics(self, caller: Caller) -> bool:
        return any(tenant.metrics_only and tenant.name == caller.tenant for tenant in self._sources.tenants())

    def _show_metrics(self, request: web.Request) -> web.Response:
        return web.Response(body=self._metrics.render(), headers={"Content-Type": CONTENT_TYPE})


def _handler(page: Page) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def answer(request: web.Request) -> web.StreamResponse:
        return page(request)

    return answer


def _failure(request: web.Request, error: web.HTTPException) -> web.Response:
    """One of aiohttp's own errors in OpenAI's shape."""
    if error.status == 404:
        return failure(404, no_such_path(request.method, request.path), code=UNKNOWN_PATH)
    reason = error.reason
    if isinstance(error, web.HTTPMethodNotAllowed):
        reason = f"method not allowed; expected {' or '.join(sorted(error.allowed_methods))}"
    return failure(error.status, f"{request.method} {request.path[:200]}: {reason}")


def _path_label(request: web.Request) -> str:
    """The route's pattern: a label of few values, whatever clients ask for."""
    resource = request.match_info.route.resource
    return resource.canonical if resource is not None else "other"


def _unauthorized(message: str) -> web.Response:
    answer = failure(401, message, code="invalid_api_key")
    answer.headers["WWW-Authenticate"] = "Bearer"
    return answer


async def _no_such_path(request: web.Request) -> web.StreamResponse:
    path = request.match_info["path"]
    if path == "models" or path.startswith("models/") or request.path == TOKENIZER_INFO:
        raise web.HTTPMethodNotAllowed(request.method, ["GET"])
    if request.path in ENDPOINTS:  # a relay keeps POST to itself
        raise web.HTTPMethodNotAllowed(request.method, ["POST"])
    raise web.HTTPNotFound
