"""POST /v1/completions."""

import time
from collections.abc import Sequence
from functools import partial
from typing import ClassVar

from aiohttp import web

from ..answers.completion_format import CompletionFormat
from ..answers.echo import Echo, echoed_text
from ..answers.generation import Choice
from ..requests.completions import CompletionRequest
from ..requests.protocol import parse
from .generating import Generating

_FEW_PROMPTS = 16
_DEFAULT_TOKENS = 16  # OpenAI's


class Completions(Generating):
    """Text after a prompt, whole or as server-sent events."""

    prompt_param: ClassVar[str] = "prompt"

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Answer a request. Raises ApiError."""
        started_at = time.monotonic()
        body = await self._service.parse(partial(parse, CompletionRequest), request)
        limits = self._accept(body)
        grammar = await self._grammar(body, limits)
        special = body.add_special_tokens is not False
        prompts = [
            await self._service.encode(prompt, limits, param=self.prompt_param, add_special_tokens=special)
            for prompt in body.prompts
        ]
        max_tokens = _DEFAULT_TOKENS if body.max_tokens is None else body.max_tokens
        big = body.is_laborious or len(prompts) > _FEW_PROMPTS
        make = partial(self._choices, body, limits, prompts, max_tokens, grammar)
        choices = await self._service.beside(make, big=big)
        tell = partial(self._echoes, body, prompts, choices)
        echoes = await self._service.beside(tell, big=big) if body.echo else ()
        format = CompletionFormat(self._model.tokenizer, self._origin(body), echoes, body.top_count)
        return await self._answer(request, body, format, self._generation(body, choices, started_at))

    def _echoes(self, body: CompletionRequest, prompts: Sequence[list[int]], choices: Sequence[Choice]) -> list[Echo]:
        """The prompt of each choice that will be told."""
        echoes: list[Echo] = []
        for number, (given, tokens) in enumerate(zip(body.prompts, prompts, strict=True)):
            special = body.shows_special_tokens
            text = given if isinstance(given, str) else echoed_text(self._model.tokenizer, tokens, special=special)
            for choice in choices[number * body.sequences :][: body.choices]:
                scored = choice if body.stream else choices[number * body.sequences]
                echoes.append(Echo(text, tokens, scored.request.prompt_logprobs))
        return echoes
