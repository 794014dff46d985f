"""What the paths of the responses API share: a request is read, then the conversation that it goes on with."""

from abc import ABC, abstractmethod
from collections.abc import Coroutine
from typing import Any, Generic

from .....core.background.fair_threads import FairThreads
from ....http.messages import Head
from ..translation import LARGE, Kind
from .asked import Asked, read
from .errors import renamed_answer
from .history import History
from .items import references
from .kept import KeptResponses

_MANY = 500  # items, for which others do not wait either


class Conversing(ABC, Generic[Kind]):
    """Implements `Surface` but for its `reply`.

    Args:
        kept: where responses are kept.
        threads: where large requests are translated.
    """

    def __init__(self, kept: KeptResponses, threads: FairThreads) -> None:
        self._kept, self._threads = kept, threads

    def translate(self, head: Head, body: bytes) -> Kind | Coroutine[Any, Any, Kind]:
        """What stands for a request; a coroutine where there is much of it, or kept responses are to be read.

        Both raise TranslationError.
        """
        if len(body) > LARGE:
            return self._large(head, body)
        asked = read(body)
        if _refers(asked):
            return self._with_history(head, asked)
        return self._translation(head, asked, History([], asked.items))

    def error(self, status: int, answer: dict[str, Any], request_id: str) -> dict[str, Any]:
        """An error answer with the names of this API."""
        return renamed_answer(answer)

    @abstractmethod
    def _translation(self, head: Head, asked: Asked, history: History) -> Kind: ...

    async def _large(self, head: Head, body: bytes) -> Kind:
        tenant = head.tenant.name
        asked = await self._threads.run(tenant, lambda: read(body))
        if _refers(asked):
            return await self._with_history(head, asked)
        return await self._threads.run(tenant, lambda: self._translation(head, asked, History([], asked.items)))

    async def _with_history(self, head: Head, asked: Asked) -> Kind:
        tenant = head.tenant.name
        history = await self._kept.history(tenant, asked)
        if history.size > LARGE or len(history.before) > _MANY:
            return await self._threads.run(tenant, lambda: self._translation(head, asked, history))
        return self._translation(head, asked, history)


def _refers(asked: Asked) -> bool:
    return bool(asked.previous_response_id or references(asked.items))
