"""The HTTP side: OpenAI's endpoints, /health and /metrics."""

import hmac
import os

from aiohttp import web

from ....core.net.http_limits import ConnectionGuard
from ....core.net.openai import bearer_key
from ..engine.thread import EngineThread
from ..options import API_KEY_VARIABLE
from .endpoints.chat import Chat
from .endpoints.completions import Completions
from .endpoints.embeddings import Embeddings
from .endpoints.tokens import Tokens
from .errors import ApiError
from .metrics import CONTENT_TYPE
from .middleware import Handler, add_request_id, answer_errors, json_response
from .service import ServedModel, Service


class Server:
    """Answers HTTP requests for one model."""

    def __init__(
        self, model: ServedModel, engine: EngineThread, guard: ConnectionGuard, *, keep_alive_s: float = 0
    ) -> None:
        """`keep_alive_s`: seconds without a token after which a stream gets a comment; 0: never."""
        self.service = Service(model, engine, keep_alive_s)
        self._guard = guard
        self._api_key = os.environ.get(API_KEY_VARIABLE, "").encode()

    def app(self) -> web.Application:
        """The aiohttp application with all routes."""
        app = web.Application(middlewares=[answer_errors, self._authenticate])
        app.on_response_prepare.append(add_request_id)
        app.router.add_get("/health", self.health)
        app.router.add_get("/metrics", self.metrics)
        app.router.add_get("/v1/models", self.models)
        app.router.add_get("/v1/models/{name:.+}", self.model)
        app.router.add_post("/v1/completions", Completions(self.service).answer)
        chat = Chat(self.service)
        app.router.add_post("/v1/chat/completions", chat.answer)
        app.router.add_post("/v1/embeddings", Embeddings(self.service).answer)
        tokens = Tokens(self.service, chat)
        for base in ("", "/v1"):  # at the root as with vLLM and SGLang, whose clients know no other path
            app.router.add_get(f"{base}/tokenizer_info", tokens.info)
            app.router.add_post(f"{base}/tokenize", tokens.tokenize)
            app.router.add_post(f"{base}/detokenize", tokens.detokenize)
        return app

    async def health(self, _: web.Request) -> web.Response:
        """200 once the model is loaded, and until the engine begins to end."""
        self.service.require_running()
        return web.Response()

    async def metrics(self, _: web.Request) -> web.Response:
        """GET /metrics: the engine's metrics in the Prometheus text format."""
        self.service.metrics.stats = self.service.engine.stats
        return web.Response(body=self.service.metrics.render(), headers={"Content-Type": CONTENT_TYPE})

    async def models(self, _: web.Request) -> web.Response:
        """GET /v1/models: a list with the one model that is served."""
        return json_response({"object": "list", "data": [self.service.card()]})

    async def model(self, request: web.Request) -> web.Response:
        """GET /v1/models/NAME: the model, or 404."""
        self.service.require_name(request.match_info["name"])
        return json_response(self.service.card())

    @web.middleware
    async def _authenticate(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """All paths but /health want the key, if there is one."""
        given = bearer_key(request.headers.get("Authorization", ""))
        if not self._api_key or hmac.compare_digest(given, self._api_key):
            self._guard.trust(request)
        elif request.path != "/health":
            message = "wrong or missing API key: expected the engine's key in the header 'Authorization: Bearer KEY'"
            raise ApiError(401, message, code="invalid_api_key")
        return await handler(request)
