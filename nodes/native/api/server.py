"""The HTTP side: OpenAI's endpoints, /health and /metrics."""

import asyncio
import os
import time
import uuid
from collections.abc import Awaitable, Callable
from importlib.metadata import version

import msgspec
from aiohttp import web

from ....core.errors import EngineError
from ....core.http_limits import ConnectionGuard
from ....core.openai import error_body, shows_key
from ..engine.request import Limits, Request, RequestTooLongError
from ..engine.thread import EngineThread
from ..options import API_KEY_VARIABLE
from ..tokenizer import Tokenizer
from .chat import ChatError, ChatTemplate
from .generation import Choice, Delta, Generation
from .metrics import CONTENT_TYPE, Metrics
from .protocol import ApiError, ChatRequest, CompletionRequest, GenerationRequest, parse, require_ids
from .responses import ChatFormat, CompletionFormat, EndpointFormat, Json, Origin, usage

_MAX_BODY_BYTES = 64 * 2**20
_COMPLETION_TOKENS = 16  # OpenAI's default for /v1/completions
_RETRY_AFTER = {"Retry-After": "1"}

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Server:
    """Answers HTTP requests for one model."""

    def __init__(
        self, name: str, engine: EngineThread, tokenizer: Tokenizer, template: ChatTemplate, guard: ConnectionGuard
    ) -> None:
        self.draining = False  # then new requests are turned away
        self.in_flight = 0  # generations being answered
        self._name, self._engine, self._tokenizer, self._template = name, engine, tokenizer, template
        self._metrics, self._guard = Metrics(), guard
        self._api_key = os.environ.get(API_KEY_VARIABLE, "")
        self._fingerprint = f"slurminfer-{version('slurminfer')}"
        self._created = int(time.time())

    def app(self) -> web.Application:
        """The aiohttp application with all routes."""
        app = web.Application(client_max_size=_MAX_BODY_BYTES, middlewares=[_answer_errors, self._authenticate])
        app.router.add_get("/health", self.health)
        app.router.add_get("/metrics", self.metrics)
        app.router.add_get("/v1/models", self.models)
        app.router.add_get("/v1/models/{name:.+}", self.model)
        app.router.add_post("/v1/completions", self.completions)
        app.router.add_post("/v1/chat/completions", self.chat)
        return app

    async def health(self, _: web.Request) -> web.Response:
        """200 once the model is loaded, and until the engine begins to end."""
        self._require_running()
        return web.Response()

    async def metrics(self, _: web.Request) -> web.Response:
        """GET /metrics: the engine's metrics in the Prometheus text format."""
        self._metrics.stats = self._engine.stats
        return web.Response(body=self._metrics.render(), headers={"Content-Type": CONTENT_TYPE})

    async def models(self, _: web.Request) -> web.Response:
        """GET /v1/models: a list with the one model that is served."""
        return _json({"object": "list", "data": [self._model_card()]})

    async def model(self, request: web.Request) -> web.Response:
        """GET /v1/models/NAME: the model, or 404."""
        self._require_name(request.match_info["name"])
        return _json(self._model_card())

    async def completions(self, request: web.Request) -> web.StreamResponse:
        """POST /v1/completions: text after a prompt, whole or as server-sent events."""
        started_at = time.monotonic()
        body = parse(CompletionRequest, await request.read())
        limits = self._accept(body)
        prompts = [await self._encode(prompt, add_special_tokens=True) for prompt in body.prompts]
        max_tokens = _COMPLETION_TOKENS if body.max_tokens is None else body.max_tokens
        choices = self._choices(body, limits, prompts, max_tokens)
        format = CompletionFormat(self._tokenizer, self._origin(body))
        return await self._answer(request, body, format, self._generation(choices, started_at))

    async def chat(self, request: web.Request) -> web.StreamResponse:
        """POST /v1/chat/completions: the next message of a conversation, whole or as server-sent events."""
        started_at = time.monotonic()
        body = parse(ChatRequest, await request.read())
        limits = self._accept(body)
        prompt = await self._encode(self._render(body), add_special_tokens=False)
        left = max(limits.sequence_tokens - len(prompt), 1)
        choices = self._choices(body, limits, [prompt], left if body.limit is None else body.limit)
        format = ChatFormat(self._tokenizer, self._origin(body))
        return await self._answer(request, body, format, self._generation(choices, started_at))

    # What both endpoints share.

    def _accept(self, body: GenerationRequest) -> Limits:
        self._require_name(body.model)
        return self._require_running()

    def _require_name(self, name: str) -> None:
        if name != self._name:
            message = f"model {name!r} does not exist; this server has: {self._name!r}"
            raise ApiError(404, message, param="model", code="model_not_found")

    def _require_running(self) -> Limits:
        if self.draining or self._engine.ended.done():
            raise ApiError(503, "the server is shutting down")
        if self._engine.limits is None:
            raise ApiError(503, "the model is loading")
        return self._engine.limits

    def _render(self, body: ChatRequest) -> str:
        go_on = bool(body.continue_final_message)
        begin = not go_on if body.add_generation_prompt is None else body.add_generation_prompt
        try:
            return self._template.render(body.turns, add_generation_prompt=begin, continue_final_message=go_on)
        except ChatError as error:
            raise ApiError(400, str(error), param="messages") from error

    async def _encode(self, prompt: str | list[int], *, add_special_tokens: bool) -> list[int]:
        if not isinstance(prompt, str):
            return prompt
        # In a thread: a prompt of 100,000 tokens takes 0.1 s, in which others' streams must not stall.
        return await asyncio.to_thread(self._tokenizer.encode, prompt, add_special_tokens=add_special_tokens)

    def _choices(
        self, body: GenerationRequest, limits: Limits, prompts: list[list[int]], max_tokens: int
    ) -> list[Choice]:
        """`n` choices for each prompt. Raises ApiError for a prompt that cannot be computed."""
        for prompt in prompts:
            require_ids(prompt, limits.vocab_size)
            try:
                limits.check(len(prompt), max_tokens)
            except RequestTooLongError as error:
                raise ApiError(400, str(error), param="prompt", code="context_length_exceeded") from error
        choices: list[Choice] = []
        for prompt in prompts:
            for index in range(body.choices):
                params = body.sampling(index, max_tokens=max_tokens, end_ids=frozenset(self._tokenizer.end_ids))
                request = Request(uuid.uuid4().hex, prompt, params)
                choices.append(Choice(len(choices), request, self._tokenizer, body.stops))
        return choices

    def _generation(self, choices: list[Choice], started_at: float) -> Generation:
        return Generation(self._engine, self._metrics, choices, started_at)

    async def _answer(
        self, request: web.Request, body: GenerationRequest, format: EndpointFormat, generation: Generation
    ) -> web.StreamResponse:
        """The client's hanging up cancels this, which aborts the generation."""
        self.in_flight += 1
        try:
            async with generation:
                if body.stream:
                    return await _stream(request, generation, format, body)
                deltas = [delta async for delta in generation]
                return _json(format.whole(deltas, usage(generation.choices, body.choices)))
        except EngineError as error:
            raise ApiError(503 if self.draining else 500, str(error)) from error
        finally:
            self.in_flight -= 1

    def _origin(self, body: GenerationRequest) -> Origin:
        return Origin(self._name, self._fingerprint, body.include_usage)

    def _model_card(self) -> Json:
        card: Json = {"id": self._name, "object": "model", "created": self._created, "owned_by": "slurminfer"}
        limits = self._engine.limits
        return card if limits is None else {**card, "max_model_len": limits.sequence_tokens}

    @web.middleware
    async def _authenticate(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """All paths but /health want the key, if there is one."""
        if not self._api_key or shows_key(request.headers.get("Authorization", ""), self._api_key):
            self._guard.trust(request)
        elif request.path != "/health":
            message = "wrong or missing API key: expected the header 'Authorization: Bearer KEY'"
            raise ApiError(401, message, code="invalid_api_key")
        return await handler(request)


async def _stream(
    request: web.Request, generation: Generation, format: EndpointFormat, body: GenerationRequest
) -> web.StreamResponse:
    """Server-sent events. An engine that fails before the first token can still be answered with a status."""
    first = await anext(generation)
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache"})
    await response.prepare(request)
    try:
        await _send(response, format.chunk(first))
        async for delta in generation:
            if _says_something(delta):
                await _send(response, format.chunk(delta))
    except EngineError as error:
        await _send(response, error_body(500, str(error)))
        return response
    if body.include_usage:
        await _send(response, format.usage_chunk(usage(generation.choices, body.choices)))
    await response.write(b"data: [DONE]\n\n")
    return response


def _says_something(delta: Delta) -> bool:
    return bool(delta.text or delta.finish or delta.logprobs)


async def _send(response: web.StreamResponse, event: Json) -> None:
    await response.write(b"data: " + msgspec.json.encode(event) + b"\n\n")


@web.middleware
async def _answer_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """All errors in OpenAI's shape, those of the HTTP library too."""
    try:
        return await handler(request)
    except ApiError as error:
        body = error_body(error.status, error.message, param=error.param, code=error.code)
        return _json(body, status=error.status, headers=_RETRY_AFTER if error.status == 503 else {})
    except web.HTTPException as error:
        message = f"{request.method} {request.path}: {error.reason}"
        return _json(error_body(error.status, message), status=error.status)


def _json(body: Json, *, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    return web.Response(
        body=msgspec.json.encode(body), status=status, content_type="application/json", headers=headers or {}
    )
