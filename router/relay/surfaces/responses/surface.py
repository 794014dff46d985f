"""OpenAI's responses API as the relay translates it."""

import time
from collections.abc import Callable, Coroutine
from typing import Any

from .....core.background.fair_threads import FairThreads
from .....core.net.openai import ON_BEHALF_HEADER
from ....http.messages import Head, Reply
from ....responses.ids import RESPONSE, new_id, parsed
from ..reply import TranslatingReply
from .asked import Asked
from .conversing import Conversing
from .history import History
from .items import named
from .kept import KeptResponses
from .reply import KeepingReply
from .translation import ResponsesTranslation

_ON_BEHALF = ON_BEHALF_HEADER.lower().encode()
_FIRST_INPUT = 0x8000  # the place in the id of an input's first item; those of the output count from 0


class Responses(Conversing[ResponsesTranslation]):
    """POST /v1/responses. Implements `Surface`.

    Args:
        kept: where responses are kept.
        threads: where large requests are translated.
        clock: Unix seconds.
    """

    def __init__(self, kept: KeptResponses, threads: FairThreads, clock: Callable[[], float] = time.time) -> None:
        super().__init__(kept, threads)
        self._clock = clock

    def reply(self, reply: Reply, translation: ResponsesTranslation) -> Reply:
        """Where the answer of chat completions goes."""
        if translation.keep_for is None:
            return TranslatingReply(reply, translation)
        return KeepingReply(reply, translation, self._keep)

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
