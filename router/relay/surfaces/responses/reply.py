"""The reply to a request for a response that is kept: the client is told that it is complete when it is kept."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from ....http.messages import Reply, Whole
from ..reply import TranslatingReply
from .translation import ResponsesTranslation

Keep = Callable[[ResponsesTranslation], Coroutine[Any, Any, None] | None]


class KeepingReply(TranslatingReply):
    """Implements `messages.Reply`.

    Args:
        reply: the client's.
        translation: of its request.
        keep: keeps the response that the translation has come to; None where that is not done.
    """

    def __init__(self, reply: Reply, translation: ResponsesTranslation, keep: Keep) -> None:
        super().__init__(reply, translation)
        self._responses, self._keep = translation, keep
        self._last = b""  # events that wait until the response is kept
        self._keeping: asyncio.Task[None] | None = None

    def whole(self, answer: Whole) -> None:
        """Send an answer in one piece."""
        if answer.status >= 400:
            self._reply.whole(answer)
            return
        translated = self._translated(answer)
        self._when_kept(lambda: self._reply.whole(translated))

    def write(self, data: bytes) -> bool:
        """Send what whole events are in the client's API, but for the last ones. False: the client is behind."""
        if not self._is_stream:
            return super().write(data)
        events = self._translation.events(data)
        if self._responses.final is None:
            return self._reply.write(events)
        self._last += events
        return True

    def end(self) -> None:
        """The answer is complete."""
        if not self._is_stream:
            super().end()
            return
        self._last += self._translation.end()
        self._when_kept(self._send_last)

    def run(self, answering: Coroutine[Any, Any, None], ended: Callable[[], None] | None = None) -> None:
        """Let a coroutine answer. It is cancelled when the client hangs up."""

        def over() -> None:
            answering.close()  # one that was cancelled before it began
            if ended is not None:
                ended()

        self._reply.run(self._until_kept(answering), over)

    async def _until_kept(self, answering: Coroutine[Any, Any, None]) -> None:
        await answering
        if self._keeping is not None:
            await self._keeping

    def _when_kept(self, send: Callable[[], None]) -> None:
        keeping = self._keep(self._responses) if self._responses.final is not None else None
        if keeping is None:
            send()
        else:
            self._keeping = asyncio.get_running_loop().create_task(_then(keeping, send))

    def _send_last(self) -> None:
        self._reply.write(self._last)
        self._reply.end()


async def _then(keeping: Coroutine[Any, Any, None], send: Callable[[], None]) -> None:
    try:
        await keeping
    finally:
        send()
