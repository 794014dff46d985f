"""The reply to a request for a response that is kept: the client is told that it is complete when it is kept.

Where it cannot be kept, `store` of the response is false, and a header or a comment of the stream says why.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import msgspec

from ....http.messages import Reply, Whole
from ..reply import TranslatingReply
from .kept import NOT_KEPT
from .translation import ResponsesTranslation

HEADER = b"x-slurminfer-not-kept"
Keep = Callable[[ResponsesTranslation], Coroutine[Any, Any, str]]


class KeepingReply(TranslatingReply):
    """Implements `messages.Reply`.

    Args:
        reply: the client's.
        translation: of its request.
        keep: keeps the response that the translation has come to; returns one of NOT_KEPT, or "" when it is kept.
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

        def send(why_not: str) -> None:
            self._reply.whole(_unkept(translated, self._responses, why_not) if why_not else translated)

        self._when_kept(send)

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

    def _when_kept(self, send: Callable[[str], None]) -> None:
        if self._responses.final is None:
            send("")
        else:
            self._keeping = asyncio.get_running_loop().create_task(_then(self._keep(self._responses), send))

    def _send_last(self, why_not: str) -> None:
        if why_not:
            before, blank, _ = self._last.rpartition(b"\n\nevent: ")  # bytes that no event has within
            before += blank[:2]
            comment = f": not kept: {NOT_KEPT[why_not]}\n\n".encode()
            self._last = before + comment + self._responses.last_event_unkept()
        self._reply.write(self._last)
        self._reply.end()


def _unkept(answer: Whole, translation: ResponsesTranslation, why_not: str) -> Whole:
    """The answer with a response that says that it was not kept."""
    headers = [*answer.headers, (HEADER, NOT_KEPT[why_not].encode())]
    return Whole(answer.status, msgspec.json.encode(translation.unkept()), headers, answer.close)


async def _then(keeping: Coroutine[Any, Any, str], send: Callable[[str], None]) -> None:
    why_not = "failed"
    try:
        why_not = await keeping
    finally:
        send(why_not)
