"""POST /tokenize and /detokenize, and GET /tokenizer_info: what vLLM has beside OpenAI's API."""

import asyncio
from functools import partial

from aiohttp import web

from ...engine.request import Limits
from ..middleware import json_response
from ..requests.chat import ChatRequest
from ..requests.tokens import TokenizeRequest, parse_detokenize, parse_tokenize
from ..service import Service
from .chat import Chat


class Tokens:
    """Texts and chats to token ids, and back. Nothing is computed by the model."""

    def __init__(self, service: Service, chat: Chat) -> None:
        self._service, self._chat = service, chat
        self._tokenizer = service.model.tokenizer

    async def tokenize(self, request: web.Request) -> web.Response:
        """The token ids of a text, or of the prompt that a chat becomes. Raises ApiError."""
        parse = partial(parse_tokenize, model=self._service.model.name)
        body, wants_strings = await self._service.parse(parse, request)
        limits = self._limits(body.model)
        ids = await self._ids(body, limits)
        strings = [self._tokenizer.token_string(id) for id in ids] if wants_strings else None
        return json_response(
            {"count": len(ids), "max_model_len": limits.sequence_tokens, "tokens": ids, "token_strs": strings}
        )

    async def detokenize(self, request: web.Request) -> web.Response:
        """The text of token ids, special tokens included. Raises ApiError."""
        body = await self._service.parse(parse_detokenize, request)
        limits = self._limits(body.model)
        body.check(limits.vocab_size, limits.sequence_tokens)
        text = await asyncio.to_thread(self._tokenizer.decode, body.tokens, special=True)
        return json_response({"prompt": text})

    async def info(self, _: web.Request) -> web.Response:
        """GET /tokenizer_info: what tokenizer_config.json says, and the chat template."""
        template = self._service.model.template.source or None
        return json_response({**self._tokenizer.config, **self._tokenizer.special_tokens, "chat_template": template})

    def _limits(self, model: str | None) -> Limits:
        if model is not None:
            self._service.require_name(model)
        return self._service.require_running()

    async def _ids(self, body: TokenizeRequest | ChatRequest, limits: Limits) -> list[int]:
        if isinstance(body, ChatRequest):
            return await self._chat.tokens(body, limits)
        special = body.add_special_tokens is not False
        return await self._service.encode(body.prompt, limits, param="prompt", add_special_tokens=special)
