"""POST /v1/embeddings."""

import uuid
from collections.abc import Sequence
from dataclasses import replace

from aiohttp import web

from .....core.errors import EngineError
from ...engine.request import Limits, Request, RequestTooLongError, SamplingParams
from ..answers.embedding_format import whole
from ..middleware import json_response
from ..requests.embeddings import EmbeddingRequest, parse_embedding, require_tokens
from ..service import Service, too_long

_FEW = 16  # inputs
_NO_TOKENS = SamplingParams(max_tokens=0)


class Embeddings:
    """A vector for each of some texts, computed in the same steps as what is generated for others."""

    def __init__(self, service: Service) -> None:
        self._service, self._engine = service, service.engine
        self._model, self._config = service.model, service.model.embedding

    async def answer(self, request: web.Request) -> web.Response:
        """Answer a request. Raises ApiError."""
        body = await self._service.parse(parse_embedding, request)
        self._service.require_name(body.model)
        limits = self._limits()
        size = body.size(self._config)
        prompts = [await self._encode(body, index, each, limits) for index, each in enumerate(body.inputs)]
        big = len(prompts) > _FEW
        requests = await self._service.beside(lambda: self._requests(body, prompts, limits), big=big)
        vectors = await self._compute(requests)
        tokens, is_base64 = sum(map(len, prompts)), body.encoding_format == "base64"
        name = self._model.name
        # Seconds where there are many: others go on meanwhile.
        return await self._service.beside(
            lambda: json_response(whole(name, vectors, self._config, size, tokens, as_base64=is_base64)), big=big
        )

    def _limits(self) -> Limits:
        """What an input may have; some models are made for shorter ones than their context has room for."""
        limits, most = self._service.require_running(), self._config.max_tokens
        return limits if most is None else replace(limits, context_length=min(limits.context_length, most))

    async def _encode(self, body: EmbeddingRequest, index: int, given: str | list[int], limits: Limits) -> list[int]:
        """The tokens of an input. The model's prompt is put before a text, not before token ids."""
        text = self._config.prompt + given if isinstance(given, str) else given
        special = body.add_special_tokens is not False
        return await self._service.encode(text, limits, param="input", add_special_tokens=special)

    def _requests(self, body: EmbeddingRequest, prompts: Sequence[list[int]], limits: Limits) -> list[Request]:
        """Raises ApiError for a prompt that cannot be computed."""
        for index, prompt in enumerate(prompts):
            name = body.name_of(index)
            require_tokens(prompt, limits.vocab_size, name)
            try:
                limits.check(len(prompt), 0)
            except RequestTooLongError as error:
                raise too_long(f"{error} ({name})", "input") from error
        pooling = self._config.pooling
        return [Request(uuid.uuid4().hex, prompt, _NO_TOKENS, pooling=pooling) for prompt in prompts]

    async def _compute(self, requests: Sequence[Request]) -> list[bytes]:
        """The client's hanging up cancels this, which aborts the requests."""
        self._service.in_flight += 1
        try:
            return await self._engine.embed(requests).wait()
        except EngineError as error:
            raise self._service.failure(error) from error
        finally:
            self._engine.abort(request.id for request in requests)
            self._service.in_flight -= 1
