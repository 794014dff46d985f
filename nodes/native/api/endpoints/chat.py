"""POST /v1/chat/completions."""

import time
from functools import partial
from typing import ClassVar

from aiohttp import web

from ...engine.request import Limits
from ..answers.chat_format import ChatFormat
from ..errors import ApiError
from ..requests.chat import ChatRequest
from ..requests.protocol import parse
from ..requests.reasoning import template_variables
from ..requests.tools import Toolset
from ..service import Service, too_long
from ..template.jinja import ChatError, PromptTooLargeError, RenderCall
from .generating import Generating
from .planning import AnswerPlanner


class Chat(Generating):
    """The next message of a conversation, whole or as server-sent events."""

    prompt_param: ClassVar[str] = "messages"

    def __init__(self, service: Service) -> None:
        super().__init__(service)
        self._planner = AnswerPlanner(service.model, service.grammars)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Answer a request. Raises ApiError."""
        started_at = time.monotonic()
        body = await self._service.parse(partial(parse, ChatRequest), request)
        limits = self._accept(body)
        tools = body.toolset
        text = await self._render(body, tools, limits)
        reading, grammar = await self._planner.plan(body, tools, text, limits)
        prompt = await self._encode(body, text, limits)
        left = max(limits.sequence_tokens - len(prompt), 1)
        left = min(left, self._model.defaults.max_new_tokens or left)
        max_tokens = left if body.limit is None else body.limit
        make = partial(self._choices, body, limits, [prompt], max_tokens, grammar, reading)
        is_long = body.is_laborious or bool(body.continue_token_ids)
        choices = await self._service.beside(make, big=body.is_laborious) if is_long else make()
        format = ChatFormat(self._model.tokenizer, self._origin(body))
        return await self._answer(request, body, format, self._generation(body, choices, started_at))

    async def tokens(self, body: ChatRequest, limits: Limits) -> list[int]:
        """The prompt that a chat becomes. Raises ApiError."""
        return await self._encode(body, await self._render(body, body.toolset, limits), limits)

    async def _encode(self, body: ChatRequest, text: str, limits: Limits) -> list[int]:
        special = bool(body.add_special_tokens)
        return await self._service.encode(text, limits, param=self.prompt_param, add_special_tokens=special)

    async def _render(self, body: ChatRequest, tools: Toolset, limits: Limits) -> str:
        go_on = bool(body.continue_final_message)
        begin = not go_on if body.add_generation_prompt is None else body.add_generation_prompt
        call = RenderCall(
            messages=body.turns,
            add_generation_prompt=begin,
            continue_final_message=go_on,
            most_bytes=self._service.encoder.most_bytes(limits),
            variables=template_variables(body.variables, body.reasoning_effort, self._model.template.variables),
            tools=list(tools.tools) or None,
        )
        try:
            return await self._model.template.render(call)
        except PromptTooLargeError as error:
            most = f"This model's maximum context length is {limits.sequence_tokens} tokens"
            raise too_long(f"{most}, but {error}", self.prompt_param) from error
        except ChatError as error:
            raise ApiError(400, str(error), param="messages") from error
