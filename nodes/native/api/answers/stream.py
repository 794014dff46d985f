"""Server-sent events: the head goes out with the first of them, so that what fails before it still gets a status."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

import msgspec
from aiohttp import web

# Without a charset some clients, such as requests, read text/* as Latin-1.
_HEADERS = {"Content-Type": "text/event-stream; charset=utf-8", "Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
_COMMENT = b": the answer is on its way\n\n"


class EventStream:
    """One answer of events. While there are none, a comment now and then keeps proxies from giving up."""

    def __init__(
        self, request: web.Request, silence_s: float, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    ) -> None:
        """`silence_s`: seconds without an event after which a comment is sent; 0: never."""
        self.response = web.StreamResponse(headers=_HEADERS)
        self._request, self._silence_s, self._sleep = request, silence_s, sleep
        self._turn = asyncio.Lock()
        self._events = 0

    @property
    def begun(self) -> bool:
        """Whether the head has been sent."""
        return self.response.prepared

    async def send(self, event: dict[str, Any]) -> None:
        """Send an event of JSON."""
        self._events += 1
        await self._write(b"data: " + msgspec.json.encode(event) + b"\n\n")

    async def finish(self) -> None:
        """Say that no event follows, as OpenAI does."""
        await self._write(b"data: [DONE]\n\n")

    async def __aenter__(self) -> Self:
        self._comments = asyncio.create_task(self._comment()) if self._silence_s else None
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._comments is not None:
            self._comments.cancel()
            with suppress(asyncio.CancelledError):
                await self._comments

    async def _write(self, data: bytes) -> None:
        async with self._turn:
            if not self.response.prepared:
                await self.response.prepare(self._request)
            await self.response.write(data)

    async def _comment(self) -> None:
        with suppress(ConnectionError):  # the client has left: whoever sends events hears of it
            while True:
                events = self._events
                await self._sleep(self._silence_s)
                if events == self._events:
                    await self._write(_COMMENT)
