"""Text that is generated for a request, whatever its endpoint: choices to the engine, their deltas to the client."""

import asyncio
import uuid
from collections.abc import Sequence
from functools import partial
from typing import ClassVar

from aiohttp import web

from .....core.errors import EngineError
from .....core.net.openai import error_body
from ...engine.request import Limits, Request, RequestTooLongError
from ...grammar.matcher import Grammar
from ..answers.best_of import keep_best
from ..answers.formats import EndpointFormat, Json, Origin, UnsentIds, encoded, usage, with_all_ids
from ..answers.generation import Choice, Delta, Generation, TextOptions
from ..answers.prompt_logprobs import prompt_logprobs_json
from ..answers.reader import PLAIN, Reading
from ..answers.stream import EventStream
from ..answers.whole import collect, is_long, require_tellable
from ..errors import ApiError
from ..middleware import json_response
from ..requests.continued import Told
from ..requests.generation import GenerationRequest
from ..requests.protocol import (
    begun_matcher,
    require_continuable,
    require_few_told,
    require_ids,
    require_length,
    require_stop_ids,
)
from ..requests.structured import structure_of
from ..requests.token_rules import token_rules
from ..service import Service, too_long


class Generating:
    """What the endpoints that generate text have in common. `prompt_param`: the field that has the prompt."""

    prompt_param: ClassVar[str]

    def __init__(self, service: Service) -> None:
        self._service = service
        self._model, self._engine = service.model, service.engine

    def _accept(self, body: GenerationRequest) -> Limits:
        self._service.require_name(body.model)
        self._service.require_generates()
        limits = self._service.require_running()
        require_stop_ids(body.stop_token_ids or (), limits.vocab_size)
        return limits

    async def _grammar(self, body: GenerationRequest, limits: Limits) -> Grammar | None:
        """What the answer must look like, if the request says it. Raises ApiError."""
        wanted = structure_of(body)
        return None if wanted is None else await self._service.grammars.compile(wanted, limits.vocab_size)

    def _choices(
        self,
        body: GenerationRequest,
        limits: Limits,
        prompts: list[list[int]],
        max_tokens: int,
        grammar: Grammar | None = None,
        reading: Reading = PLAIN,
    ) -> list[Choice]:
        """`n` choices for each prompt. Raises ApiError for a prompt that cannot be computed."""
        told = body.told
        for each in told:
            require_continuable(each, limits.vocab_size, max_tokens)
        require_length(body, max_tokens)
        self._require_room(limits, prompts, max_tokens)
        lengths = [len(prompt) for prompt in prompts for _ in range(body.sequences)]
        require_few_told(told, lengths, limits.sequence_tokens)
        require_tellable(body, prompts)
        choices: list[Choice] = []
        tokenizer, end_ids = self._model.tokenizer, frozenset(self._model.tokenizer.end_ids)
        text = _text_options(body, reading)
        rules = token_rules(body, limits.vocab_size, tokenizer, end_ids | frozenset(body.stop_token_ids or ()))
        defaults = self._model.defaults
        sequences = ((prompt, index) for prompt in prompts for index in range(body.sequences))
        for (prompt, index), begun in zip(sequences, told, strict=True):
            params = body.sampling(
                index, max_tokens=max_tokens, end_ids=end_ids, defaults=defaults, rules=rules, grammar=grammar
            )
            matcher = begun_matcher(begun, grammar, params.stop_token_ids)
            tokens = () if begun.is_finished else begun.tokens
            request = Request(uuid.uuid4().hex, prompt, params, tokens, matcher=matcher)
            choices.append(_continued(Choice(len(choices), request, tokenizer, text), begun))
        return choices

    def _require_room(self, limits: Limits, prompts: list[list[int]], max_tokens: int) -> None:
        """Raise ApiError for a prompt that the model cannot compute, or not with so many tokens behind it."""
        for prompt in prompts:
            require_ids(prompt, limits.vocab_size)
            try:
                limits.check(len(prompt), max_tokens)
            except RequestTooLongError as error:
                raise too_long(str(error), self.prompt_param) from error

    def _generation(self, body: GenerationRequest, choices: list[Choice], started_at: float) -> Generation:
        # Stop strings are found as text is made of tokens: the sooner, the less is computed in vain.
        at_once = bool(body.stream or any(choice.may_end for choice in choices))
        return Generation(self._engine, self._service.metrics, choices, started_at, at_once=at_once)

    async def _answer(
        self, request: web.Request, body: GenerationRequest, format: EndpointFormat, generation: Generation
    ) -> web.StreamResponse:
        """The client's hanging up cancels this, which aborts the generation."""
        self._service.in_flight += 1
        try:
            if begun := [choice for choice in generation.choices if choice.is_begun]:
                await self._service.beside(partial(_skip_told, format, begun), big=body.is_laborious)
            async with generation:
                if body.stream:
                    return await self._stream(
                        EventStream(request, self._service.keep_alive_s), body, format, generation
                    )
                deltas = await collect(generation)
                spent = usage(generation.choices, body.sequences)
                if body.ranks:
                    deltas = keep_best(deltas, generation.choices, of=body.sequences, keep=body.choices)
                big = is_long(body, len(deltas))
                return await self._service.beside(
                    lambda: json_response(encoded(self._whole(body, format, generation, deltas, spent))), big=big
                )
        except EngineError as error:
            raise self._service.failure(error) from error
        finally:
            self._service.in_flight -= 1

    def _whole(
        self, body: GenerationRequest, format: EndpointFormat, generation: Generation, deltas: list[Delta], spent: Json
    ) -> Json:
        answer = format.whole(deltas, spent)
        requests = [choice.request for choice in generation.choices[:: body.sequences]]
        if body.return_token_ids:
            answer = format.with_prompt_ids(with_all_ids(answer, deltas), [each.prompt for each in requests])
        top = body.prompt_logprobs
        if top is None:
            return answer
        return format.with_prompts(
            answer, [prompt_logprobs_json(self._model.tokenizer, each, top) for each in requests]
        )

    async def _stream(
        self, stream: EventStream, body: GenerationRequest, format: EndpointFormat, generation: Generation
    ) -> web.StreamResponse:
        """Server-sent events. Raises ApiError where the engine fails before the head has been sent."""
        unsent = UnsentIds()
        # Of choices that another server has begun, it has told the prompts too.
        untold = {choice.index for choice in generation.choices if body.return_token_ids and not choice.is_begun}
        async with stream:
            try:
                async for delta in generation:
                    if body.streams_ids:
                        unsent.add(delta)
                    if _says_something(delta) or not stream.begun:
                        spent = usage([generation.choices[delta.index]], 1) if body.continuous_usage else None
                        ids = unsent.take(delta.index) if body.streams_ids else None
                        if format.is_long(delta.index):
                            event = await asyncio.to_thread(format.chunk, delta, spent, ids)
                        else:
                            event = format.chunk(delta, spent, ids)
                        if delta.index in untold:
                            untold.discard(delta.index)
                            event = format.with_prompt_ids(event, [generation.choices[delta.index].request.prompt])
                        await stream.send(event)
            except EngineError as error:
                failure = self._service.failure(error)
                if not stream.begun:
                    raise failure from error
                await stream.send(error_body(failure.status, failure.message, code=failure.code))
                return stream.response
            if body.include_usage:
                await stream.send(format.usage_chunk(usage(generation.choices, body.sequences)))
            await stream.finish()
        return stream.response

    def _origin(self, body: GenerationRequest) -> Origin:
        as_ids = bool(body.return_tokens_as_token_ids)
        return Origin(self._model.name, self._service.fingerprint, body.include_usage, as_ids)


def _continued(choice: Choice, told: Told) -> Choice:
    """A choice that goes on after what another server has told of it. Raises ApiError where its text has ended."""
    if choice.skip(told.tokens, finished=told.is_finished) and not told.is_finished:
        message = f"{told.param} has a stop string in its text, or its last call"
        raise ApiError(400, message, param=told.param)
    return choice


def _skip_told(format: EndpointFormat, choices: Sequence[Choice]) -> None:
    """Let a format begin each choice behind what another server has told of it."""
    for choice in choices:
        format.skip(choice.index, choice.told)


def _text_options(body: GenerationRequest, reading: Reading) -> TextOptions:
    return TextOptions(
        stops=body.stops,
        keeps_stop=body.keeps_stop,
        shows_special_tokens=body.shows_special_tokens,
        min_tokens=body.fewest_tokens,
        tells_logprobs=body.top_count is not None,
        reading=reading,
    )


def _says_something(delta: Delta) -> bool:
    return bool(delta.text or delta.reasoning or delta.calls or delta.finish or delta.logprobs)
