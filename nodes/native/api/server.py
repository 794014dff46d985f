"""The HTTP side: OpenAI's endpoints, /health and /metrics."""

import asyncio
import hmac
import os
import time
import uuid
from dataclasses import dataclass
from importlib.metadata import version

from aiohttp import web

from ....core.errors import EngineError
from ....core.net.compression import BodyError
from ....core.net.http_body import read_body
from ....core.net.http_limits import ConnectionGuard
from ....core.net.openai import bearer_key, error_body
from ..engine.failures import RequestFailedError
from ..engine.request import Limits, Request, RequestTooLongError
from ..engine.thread import EngineThread
from ..options import API_KEY_VARIABLE
from ..tokenizer import Tokenizer
from .body import MAX_BYTES
from .chat import ChatTemplate
from .defaults import SamplingDefaults
from .encoding import PromptEncoder
from .errors import ApiError
from .generation import Choice, Delta, Generation, TextOptions
from .metrics import CONTENT_TYPE, Metrics
from .middleware import Handler, add_request_id, answer_errors, json_response
from .protocol import (
    ChatRequest,
    CompletionRequest,
    GenerationRequest,
    parse,
    require_continuable,
    require_ids,
    require_stop_ids,
)
from .responses import ChatFormat, CompletionFormat, EndpointFormat, Json, Origin, UnsentIds, usage
from .stream import EventStream
from .template import ChatError, PromptTooLargeError, RenderCall
from .whole import collect

_COMPLETION_TOKENS = 16  # OpenAI's default for /v1/completions


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A model as clients know it."""

    name: str
    tokenizer: Tokenizer
    template: ChatTemplate
    defaults: SamplingDefaults


class Server:
    """Answers HTTP requests for one model."""

    def __init__(
        self, model: ServedModel, engine: EngineThread, guard: ConnectionGuard, *, keep_alive_s: float = 0
    ) -> None:
        """`keep_alive_s`: seconds without a token after which a stream gets a comment; 0: never."""
        self.draining = False  # then new requests are turned away
        self.in_flight = 0  # generations being answered
        self._model, self._engine, self._guard, self._keep_alive_s = model, engine, guard, keep_alive_s
        self._encoder = PromptEncoder(model.tokenizer)
        self._metrics = Metrics()
        self._api_key = os.environ.get(API_KEY_VARIABLE, "").encode()
        self._fingerprint = f"slurminfer-{version('slurminfer')}"
        self._created = int(time.time())

    def app(self) -> web.Application:
        """The aiohttp application with all routes."""
        app = web.Application(middlewares=[answer_errors, self._authenticate])
        app.on_response_prepare.append(add_request_id)
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
        return json_response({"object": "list", "data": [self._model_card()]})

    async def model(self, request: web.Request) -> web.Response:
        """GET /v1/models/NAME: the model, or 404."""
        self._require_name(request.match_info["name"])
        return json_response(self._model_card())

    async def completions(self, request: web.Request) -> web.StreamResponse:
        """POST /v1/completions: text after a prompt, whole or as server-sent events."""
        started_at = time.monotonic()
        body = parse(CompletionRequest, await _read(request))
        limits = self._accept(body)
        special = body.add_special_tokens is not False
        prompts = [await self._encode(body, prompt, limits, add_special_tokens=special) for prompt in body.prompts]
        max_tokens = _COMPLETION_TOKENS if body.max_tokens is None else body.max_tokens
        choices = await asyncio.to_thread(self._choices, body, limits, prompts, max_tokens)
        format = CompletionFormat(self._model.tokenizer, self._origin(body))
        return await self._answer(request, body, format, self._generation(body, choices, started_at))

    async def chat(self, request: web.Request) -> web.StreamResponse:
        """POST /v1/chat/completions: the next message of a conversation, whole or as server-sent events."""
        started_at = time.monotonic()
        body = parse(ChatRequest, await _read(request))
        limits = self._accept(body)
        text = await self._render(body, limits)
        prompt = await self._encode(body, text, limits, add_special_tokens=bool(body.add_special_tokens))
        left = max(limits.sequence_tokens - len(prompt), 1)
        max_tokens = left if body.limit is None else body.limit
        choices = self._choices(body, limits, [prompt], max_tokens)
        format = ChatFormat(self._model.tokenizer, self._origin(body))
        return await self._answer(request, body, format, self._generation(body, choices, started_at))

    # What both endpoints share.

    def _accept(self, body: GenerationRequest) -> Limits:
        self._require_name(body.model)
        limits = self._require_running()
        require_stop_ids(body.stop_token_ids or (), limits.vocab_size)
        return limits

    def _require_name(self, name: str) -> None:
        if name != self._model.name:
            message = f"model {name[:80]!r} does not exist; this server has: {self._model.name!r}"
            raise ApiError(404, message, param="model", code="model_not_found")

    def _require_running(self) -> Limits:
        if self.draining or self._engine.ended.done():
            raise ApiError(503, "the server is shutting down")
        if self._engine.limits is None:
            raise ApiError(503, "the model is loading")
        return self._engine.limits

    async def _render(self, body: ChatRequest, limits: Limits) -> str:
        go_on = bool(body.continue_final_message)
        begin = not go_on if body.add_generation_prompt is None else body.add_generation_prompt
        call = RenderCall(
            messages=body.turns,
            add_generation_prompt=begin,
            continue_final_message=go_on,
            most_bytes=self._encoder.most_bytes(limits),
            variables=body.variables,
        )
        try:
            return await self._model.template.render(call)
        except PromptTooLargeError as error:
            most = f"This model's maximum context length is {limits.sequence_tokens} tokens"
            raise _too_long(f"{most}, but {error}", body) from error
        except ChatError as error:
            raise ApiError(400, str(error), param="messages") from error

    async def _encode(
        self, body: GenerationRequest, prompt: str | list[int], limits: Limits, *, add_special_tokens: bool
    ) -> list[int]:
        if not isinstance(prompt, str):
            return prompt
        try:
            return await self._encoder.encode(prompt, limits, add_special_tokens=add_special_tokens)
        except RequestTooLongError as error:
            raise _too_long(str(error), body) from error

    async def close(self) -> None:
        """End the threads and processes that work for this server."""
        self._encoder.close()
        await self._model.template.close()

    def _choices(
        self, body: GenerationRequest, limits: Limits, prompts: list[list[int]], max_tokens: int
    ) -> list[Choice]:
        """`n` choices for each prompt. Raises ApiError for a prompt that cannot be computed."""
        told = body.continue_token_ids or []
        require_continuable(told, limits.vocab_size, max_tokens)
        for prompt in prompts:
            require_ids(prompt, limits.vocab_size)
            try:
                limits.check(len(prompt), max_tokens)
            except RequestTooLongError as error:
                raise _too_long(str(error), body) from error
        choices: list[Choice] = []
        tokenizer, end_ids = self._model.tokenizer, frozenset(self._model.tokenizer.end_ids)
        text = TextOptions(stops=body.stops, keeps_stop=body.keeps_stop, shows_special_tokens=body.shows_special_tokens)
        for prompt in prompts:
            for index in range(body.choices):
                params = body.sampling(index, max_tokens=max_tokens, end_ids=end_ids, defaults=self._model.defaults)
                request = Request(uuid.uuid4().hex, prompt, params, told)
                choices.append(Choice(len(choices), request, tokenizer, text))
        if told and choices[0].skip(told):
            raise ApiError(400, "continue_token_ids has a stop string in its text", param="continue_token_ids")
        return choices

    def _generation(self, body: GenerationRequest, choices: list[Choice], started_at: float) -> Generation:
        # Stop strings are found as text is made of tokens: the sooner, the less is computed in vain.
        at_once = bool(body.stream or body.stops)
        return Generation(self._engine, self._metrics, choices, started_at, at_once=at_once)

    async def _answer(
        self, request: web.Request, body: GenerationRequest, format: EndpointFormat, generation: Generation
    ) -> web.StreamResponse:
        """The client's hanging up cancels this, which aborts the generation."""
        self.in_flight += 1
        if body.continue_token_ids:
            format.skip(body.continue_token_ids)
        try:
            async with generation:
                if body.stream:
                    return await self._stream(EventStream(request, self._keep_alive_s), body, format, generation)
                deltas = await collect(generation)
                spent = usage(generation.choices, body.choices)
                # Seconds where there are many tokens: others go on meanwhile.
                return await asyncio.to_thread(lambda: json_response(format.whole(deltas, spent)))
        except EngineError as error:
            raise self._failure(error) from error
        finally:
            self.in_flight -= 1

    async def _stream(
        self, stream: EventStream, body: GenerationRequest, format: EndpointFormat, generation: Generation
    ) -> web.StreamResponse:
        """Server-sent events. Raises ApiError where the engine fails before the head has been sent."""
        unsent = UnsentIds()
        async with stream:
            try:
                async for delta in generation:
                    if body.stream_token_ids:
                        unsent.add(delta)
                    if _says_something(delta) or not stream.begun:
                        spent = usage([generation.choices[delta.index]], 1) if body.continuous_usage else None
                        ids = unsent.take(delta.index) if body.stream_token_ids else None
                        await stream.send(format.chunk(delta, spent, ids))
            except EngineError as error:
                failure = self._failure(error)
                if not stream.begun:
                    raise failure from error
                await stream.send(error_body(failure.status, failure.message, code=failure.code))
                return stream.response
            if body.include_usage:
                await stream.send(format.usage_chunk(usage(generation.choices, body.choices)))
            await stream.finish()
        return stream.response

    def _failure(self, error: EngineError) -> ApiError:
        """The answer to a request that the engine has not finished."""
        if isinstance(error, RequestFailedError):
            return ApiError(500, str(error), code="request_failed")
        return ApiError(503 if self.draining else 500, str(error), code="engine_failed")

    def _origin(self, body: GenerationRequest) -> Origin:
        return Origin(self._model.name, self._fingerprint, body.include_usage)

    def _model_card(self) -> Json:
        name, limits = self._model.name, self._engine.limits
        card: Json = {"id": name, "object": "model", "created": self._created, "owned_by": "slurminfer",
                      "root": name, "parent": None}  # fmt: skip
        return card if limits is None else {**card, "max_model_len": limits.sequence_tokens}

    @web.middleware
    async def _authenticate(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """All paths but /health want the key, if there is one."""
        given = bearer_key(request.headers.get("Authorization", ""))
        if not self._api_key or hmac.compare_digest(given, self._api_key):
            self._guard.trust(request)
        elif request.path != "/health":
            message = "wrong or missing API key: expected the header 'Authorization: Bearer KEY'"
            raise ApiError(401, message, code="invalid_api_key")
        return await handler(request)


async def _read(request: web.Request) -> bytes:
    try:
        return await read_body(request, MAX_BYTES)
    except BodyError as error:
        raise ApiError(error.status, error.message) from error


def _too_long(message: str, body: GenerationRequest) -> ApiError:
    """`message` begins as OpenAI's does, by which clients recognize that they must cut their prompts."""
    param = "messages" if isinstance(body, ChatRequest) else "prompt"
    return ApiError(400, message, param=param, code="context_length_exceeded")


def _says_something(delta: Delta) -> bool:
    return bool(delta.text or delta.finish or delta.logprobs)
