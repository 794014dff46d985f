"""OpenAI's responses API as the relay translates it."""

import time
from collections.abc import Callable, Coroutine
from typing import Any

from .....core.net.openai import ON_BEHALF_HEADER
from ....http.messages import Head, Reply
from ....responses.ids import RESPONSE, new_id, parsed
from ..reply import TranslatingReply
from .asked import Asked, read
from .errors import renamed_answer
from .history import History
from .items import named, references
from .kept import KeptResponses
from .reply import KeepingReply
from .translation import ResponsesTranslation

_ON_BEHALF = ON_BEHALF_HEADER.lower().encode()
_FIRST_INPUT = 0x8000  # the place in the id of an input's first item; those of the output count from 0


class Responses:
    """POST /v1/responses. Implements `Surface`.

    Args:
        kept: where responses are kept.
        clock: Unix seconds.
    """

    def __init__(self, kept: KeptResponses, clock: Callable[[], float] = time.time) -> None:
        self._kept, self._clock = kept, clock

    def translate(self, head: Head, body: bytes) -> ResponsesTranslation | Coroutine[Any, Any, ResponsesTranslation]:
        """What stands for a request; a coroutine where kept responses are to be read. Both raise TranslationError."""
        asked = read(body)
        if asked.previous_response_id or references(asked.items):
            return self._with_history(head, asked)
        return self._translation(head, asked, History([], asked.items))

    def error(self, status: int, answer: dict[str, Any], request_id: str) -> dict[str, Any]:
        """An error answer with the names of this API."""
        return renamed_answer(answer)

    def reply(self, reply: Reply, translation: ResponsesTranslation) -> Reply:
        """Where the answer of chat completions goes."""
        if translation.keep_for is None:
            return TranslatingReply(reply, translation)
        return KeepingReply(reply, translation, self._keep)

    async def _with_history(self, head: Head, asked: Asked) -> ResponsesTranslation:
        return self._translation(head, asked, await self._kept.history(head.tenant.name, asked))

    def _translation(self, head: Head, asked: Asked, history: History) -> ResponsesTranslation:
        tenant, now = head.tenant.name, self._clock()
        previous = parsed(asked.previous_response_id or "")
        translation = ResponsesTranslation(asked, history, new_id(tenant, now, previous), self._clock)
        if asked.keeps and _ON_BEHALF not in head.fields:  # the rows of a batch are nobody's conversations
            translation.keep_for = tenant
        return translation

    def _keep(self, translation: ResponsesTranslation) -> Coroutine[Any, Any, str]:
        tenant, response, history = translation.keep_for, translation.final, translation.history
        assert tenant is not None and response is not None
        items = named(history.items, translation.id.removeprefix(RESPONSE), _FIRST_INPUT)
        return self._kept.keep(tenant, response, translation.asked.previous_response_id or "", history, items)
