"""POST /v1/responses/input_tokens: how many tokens a request has, as the engine counts them."""

from collections.abc import Coroutine
from typing import Any

import msgspec

from ....http.messages import Head, Reply
from ..counting import CountTranslation, Engines
from ..reply import TranslatingReply
from .asked import Asked, read
from .chat import chat_fields
from .errors import renamed_answer
from .history import History
from .items import references
from .kept import KeptResponses


class InputTokens:
    """POST /v1/responses/input_tokens. Implements `Surface`.

    Args:
        kept: where responses are kept.
        engines: of the workers of a model.
    """

    def __init__(self, kept: KeptResponses, engines: Engines) -> None:
        self._kept, self._engines = kept, engines

    def translate(self, head: Head, body: bytes) -> CountTranslation | Coroutine[Any, Any, CountTranslation]:
        """What stands for a request; a coroutine where kept responses are to be read. Both raise TranslationError."""
        asked = read(body)
        if asked.previous_response_id or references(asked.items):
            return self._with_history(head, asked)
        return self._translation(asked, History([], asked.items))

    def reply(self, reply: Reply, translation: CountTranslation) -> Reply:
        """Where the engine's answer goes."""
        return TranslatingReply(reply, translation)

    def error(self, status: int, answer: dict[str, Any], request_id: str) -> dict[str, Any]:
        """An error answer with the names of this API."""
        return renamed_answer(answer)

    async def _with_history(self, head: Head, asked: Asked) -> CountTranslation:
        return self._translation(asked, await self._kept.history(head.tenant.name, asked))

    def _translation(self, asked: Asked, history: History) -> CountTranslation:
        shortest = msgspec.structs.replace(asked, max_output_tokens=1, stream=None, top_logprobs=None, include=None)
        chat = chat_fields(shortest, [*history.before, *history.items])
        return CountTranslation(chat, {"object": "response.input_tokens"}, self._engines)
