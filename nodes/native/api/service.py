"""The model that is served, and what all endpoints need of it."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import version
from typing import TypeVar

from aiohttp import web

from ....core.errors import EngineError
from ....core.machine.memory import give_back_freed
from ....core.net.compression import BodyError
from ....core.net.http_body import read_body
from ....quant.checkpoint.embedding import EmbeddingConfig
from ..engine.failures import RequestFailedError, StructureError
from ..engine.request import Limits, RequestTooLongError
from ..engine.thread import EngineThread
from ..tokenizer import Tokenizer
from .answers.formats import Json
from .encoding import PromptEncoder
from .errors import ApiError
from .grammars import GrammarCompiler
from .metrics import Metrics
from .reasoning.tags import Tags
from .requests.body import BIG_BYTES, MAX_BYTES
from .requests.defaults import SamplingDefaults
from .template.chat_template import ChatTemplate
from .tools.families import Family

_BIG_AT_ONCE = 2  # pieces of work that may take seconds
_Found = TypeVar("_Found")


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A model as clients know it."""

    name: str
    tokenizer: Tokenizer
    template: ChatTemplate
    defaults: SamplingDefaults
    embedding: EmbeddingConfig
    created: int = 0  # Unix seconds: when its files were written
    generates: bool = True  # False: it has no lm_head, and is for embeddings only
    family: Family | None = None  # how it writes calls of tools; None: they are not looked for
    tags: Tags | None = None  # around what it thinks; None: that is not looked for


class Service:
    """One model behind HTTP: its engine, tokenizer and metrics, and whether it still takes requests."""

    def __init__(self, model: ServedModel, engine: EngineThread, keep_alive_s: float) -> None:
        """`keep_alive_s`: seconds without a token after which a stream gets a comment; 0: never."""
        self.draining = False  # then new requests are turned away
        self.in_flight = 0  # generations being answered
        self.model, self.engine, self.keep_alive_s = model, engine, keep_alive_s
        self.encoder = PromptEncoder(model.tokenizer)
        self.grammars = GrammarCompiler(model.tokenizer)
        self._big_work = ThreadPoolExecutor(_BIG_AT_ONCE, "big")
        self.metrics = Metrics()
        self.fingerprint = f"slurminfer-{version('slurminfer')}"

    def require_name(self, name: str) -> None:
        """Raise ApiError unless `name` is the model's."""
        if name != self.model.name:
            message = f"model {name[:80]!r} does not exist; this server has: {self.model.name!r}"
            raise ApiError(404, message, param="model", code="model_not_found")

    def require_generates(self) -> None:
        """Raise ApiError for a model that generates no text."""
        if not self.model.generates:
            message = f"model {self.model.name!r} has no lm_head, and generates no text: expected POST /v1/embeddings"
            raise ApiError(400, message, param="model")

    def require_running(self) -> Limits:
        """What requests may ask for. Raises ApiError while the model is loading, and when the server ends."""
        if self.draining or self.engine.ended.done():
            raise ApiError(503, "the server is shutting down")
        if self.engine.limits is None:
            raise ApiError(503, "the model is loading")
        return self.engine.limits

    def card(self) -> Json:
        """The model as /v1/models has it."""
        name, limits = self.model.name, self.engine.limits
        card: Json = {"id": name, "object": "model", "created": self.model.created, "owned_by": "slurminfer",
                      "root": name, "parent": None}  # fmt: skip
        return card if limits is None else {**card, "max_model_len": limits.sequence_tokens}

    async def encode(
        self, prompt: str | list[int], limits: Limits, *, param: str, add_special_tokens: bool
    ) -> list[int]:
        """The tokens of a prompt, which `param` of the request has. Raises ApiError where it is too long."""
        if not isinstance(prompt, str):
            return prompt
        try:
            return await self.encoder.encode(prompt, limits, add_special_tokens=add_special_tokens)
        except RequestTooLongError as error:
            raise too_long(str(error), param) from error

    def failure(self, error: EngineError) -> ApiError:
        """The answer to a request that the engine has not finished."""
        if isinstance(error, StructureError):
            return ApiError(400, str(error), code="request_failed")
        if isinstance(error, RequestFailedError):
            return ApiError(500, str(error), code="request_failed")
        return ApiError(503 if self.draining else 500, str(error), code="engine_failed")

    async def beside(self, work: Callable[[], _Found], *, big: bool) -> _Found:
        """Do some work beside the event loop. What is big waits for other such work; the rest passes it."""
        loop = asyncio.get_running_loop()
        return await (loop.run_in_executor(self._big_work, _trimmed, work) if big else asyncio.to_thread(work))

    async def parse(self, parse: Callable[[bytes], _Found], request: web.Request) -> _Found:
        """What `parse` makes of the body of a request. Raises ApiError."""
        body = await read(request)
        return await self.beside(lambda: parse(body), big=True) if len(body) > BIG_BYTES else parse(body)

    async def close(self) -> None:
        """End the threads and processes that work for this server."""
        self._big_work.shutdown(wait=False, cancel_futures=True)
        self.encoder.close()
        self.grammars.close()
        await self.model.template.close()


def _trimmed(work: Callable[[], _Found]) -> _Found:
    """Do some work, and give back to the system what it took: else the process keeps the most that it ever had."""
    try:
        return work()
    finally:
        give_back_freed()


async def read(request: web.Request) -> bytes:
    """The body of a request. Raises ApiError."""
    try:
        return await read_body(request, MAX_BYTES)
    except BodyError as error:
        raise ApiError(error.status, error.message) from error


def too_long(message: str, param: str) -> ApiError:
    """`message` begins as OpenAI's does, by which clients recognize that they must cut their prompts."""
    return ApiError(400, message, param=param, code="context_length_exceeded")
