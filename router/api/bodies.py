"""Bodies of requests in memory: each up to a bound, and all of them together."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from aiohttp import HttpVersion11, web

from ...core.net.http_body import BodyError, read_body

MOST_BYTES = 64 * 2**20
MOST_BYTES_TOGETHER = 2**30
SILENCE_S = 60.0  # of a client in the middle of a body


class Bodies:
    """Reads the bodies of requests and knows how much of them is held until they are answered."""

    def __init__(self, most_bytes: int = MOST_BYTES, together: int = MOST_BYTES_TOGETHER) -> None:
        self._most_bytes, self._together = most_bytes, together
        self.held = 0  # bytes

    @asynccontextmanager
    async def read(self, request: web.Request) -> AsyncIterator[bytes]:
        """The decompressed body, which counts as held meanwhile. Raises BodyError.

        For requests whose key was right: until here, nothing of a body is asked for.
        """
        taken = 0

        def take(count: int) -> None:
            nonlocal taken
            if self.held + count > self._together:
                raise BodyError(503, "the router holds as many request bodies as it can; send this one again later")
            taken += count
            self.held += count

        try:
            if request.content.is_eof():  # it has come with the head, as most do: a timer costs more than reading it
                yield await read_body(request, self._most_bytes, take)
            else:
                await _continue(request)
                yield await self._read_slowly(request, take)
        finally:
            self.held -= taken

    async def _read_slowly(self, request: web.Request, take: Callable[[int], None]) -> bytes:
        loop = asyncio.get_running_loop()

        def go_on(count: int) -> None:
            patience.reschedule(loop.time() + SILENCE_S)
            take(count)

        try:
            async with asyncio.timeout(SILENCE_S) as patience:
                return await read_body(request, self._most_bytes, go_on)
        except TimeoutError as error:
            raise BodyError(408, f"no more of the body came for {SILENCE_S:g} s") from error


async def wait_with_continue(request: web.Request) -> None:
    """What aiohttp calls for `Expect: 100-continue`: nothing is said yet, because the key has not been checked."""


async def _continue(request: web.Request) -> None:
    """Ask a client that waits for it (RFC 9110, 10.1.1) to send its body."""
    if request.version == HttpVersion11 and request.headers.get("Expect", "").lower() == "100-continue":
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0  # so that aiohttp can still answer with an error of its own
