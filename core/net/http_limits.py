"""Limits on the connections of an aiohttp server, so that peers without a key cannot use up its descriptors.

core/net/connection_guard.py says who is closed when. The application calls `trust` as soon as the head of a request has
shown the right key.

`aiohttp.web.AppRunner` makes the server and `ConnectionGuard.listen` accepts for it:

    guard = ConnectionGuard(limits_of_process())
    runner = web.AppRunner(app, handler_cancellation=True)
    await runner.setup()
    await guard.listen(runner, sock)      # may be called for several sockets
    ...
    guard.close()                         # no new connections
    await runner.cleanup()
"""

import asyncio
import logging
import socket
from collections.abc import Sequence
from typing import Any

import msgspec
from aiohttp import web

from ..background.rounds import Rounds
from .connection_guard import ConnectionLimits, Guard
from .openai import error_body

_log = logging.getLogger(__name__)


class ConnectionGuard(Guard):
    """The guard of an aiohttp server, which also accepts for it."""

    def __init__(self, limits: ConnectionLimits) -> None:
        super().__init__(limits)
        self._servers: list[asyncio.Server] = []
        self._clock: asyncio.Task[None] | None = None
        self._rounds = Rounds()

    async def listen(self, runner: web.AppRunner, sock: socket.socket, *, backlog: int = 1024) -> None:
        """Accept connections of `sock`, a bound TCP or Unix socket, for the server of `runner`, which is set up."""
        server, loop = runner.server, asyncio.get_running_loop()
        assert server is not None, "runner.setup() comes before"

        def connect() -> _Connection:
            return _Connection(self, server, loop=loop)

        if sock.family == socket.AF_UNIX:
            self._servers.append(await loop.create_unix_server(connect, sock=sock, backlog=backlog))
        else:
            self._servers.append(await loop.create_server(connect, sock=sock, backlog=backlog))
        if self._clock is None:
            self._clock = asyncio.create_task(self._run_clock())

    def close(self) -> None:
        """Accept no more; connections stay."""
        for server in self._servers:
            server.close()
        if self._clock is not None:
            self._clock.cancel()

    def trust(self, request: web.BaseRequest) -> None:
        """Note that `request` has shown the right key. Call it before the body is read."""
        connection = request.protocol
        if isinstance(connection, _Connection) and connection.transport is not None:
            self.began(connection)

    async def _run_clock(self) -> None:
        while True:
            await asyncio.sleep(1)
            with self._rounds.guarded("clock"):
                self.tick()


class _Connection(web.RequestHandler):
    """aiohttp's protocol of one connection, which tells the guard what happens."""

    def __init__(self, guard: ConnectionGuard, server: web.Server, *, loop: asyncio.AbstractEventLoop) -> None:
        limits = guard.limits
        super().__init__(
            server, loop=loop, access_log=None, keepalive_timeout=limits.idle_s, lingering_time=2.0,  # type: ignore[arg-type]
            max_line_size=limits.line_bytes, max_field_size=limits.line_bytes, max_headers=limits.headers,
            auto_decompress=False,
        )  # fmt: skip
        self.guard = guard
        self.source = ""  # the peer's address; "" for a Unix socket
        self.since = 0  # the guard's tick at which it was opened
        self.discarded = 0  # bytes read while it was not busy
        self._head_bytes = 0  # of a head that has begun and not ended
        self.trusted = self.busy = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        peer = transport.get_extra_info("peername")
        self.source = peer[0] if isinstance(peer, tuple) else ""
        self.guard.opened(self)

    def connection_lost(self, exc: BaseException | None) -> None:
        self.guard.lost(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        is_unasked = not self.busy and not self._messages
        if is_unasked and not self.guard.read(self, len(data)) and self.transport is not None:
            self.transport.abort()
            return
        before = self._request_count
        super().data_received(data)
        # A request is being answered, or waits for its turn in the event loop: several pieces may come before that.
        if self._waiter is None or self._messages or self._request_count != before:
            self._head_bytes = 0
            return
        self._head_bytes += len(data)
        if self._head_bytes > self.guard.limits.head_bytes and self.transport is not None:
            self.guard.malformed(self.source, f"a head of more than {self.guard.limits.head_bytes} bytes")
            self.transport.abort()

    def cut(self) -> None:
        """Close the connection at once."""
        if self.transport is not None:
            self.transport.abort()

    async def finish_response(self, request: web.BaseRequest, response: Any, *args: Any) -> Any:
        """Send the response; the connection is idle afterwards."""
        if isinstance(response, web.HTTPException):  # of aiohttp's own, before any middleware: a wrong Expect
            response = _in_openais_shape(response)
        try:
            return await super().finish_response(request, response, *args)
        finally:
            self.guard.finished(self)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer a head that is not HTTP, or a request for which the application has raised an exception."""
        if status < 500:
            told = _first_line(message) or "malformed HTTP request"
            self.guard.malformed(self.source, told)
        else:
            _log.error("%s %.200s failed", request.method, request.path, exc_info=exc)
            told = "internal error"
        if request.writer.output_size > 0:
            raise ConnectionError("the response has begun")
        body = msgspec.json.encode(error_body(status, told))
        response = web.Response(status=status, body=body, content_type="application/json")
        response.force_close()
        return response

    def log_exception(self, *args: Any, exc_info: BaseException | None = None, **kwargs: Any) -> None:
        """Log errors outside of handlers: mostly bodies that end early or are not what their head says."""
        if isinstance(exc_info, web.RequestPayloadError | ConnectionError):
            self.guard.malformed(self.source, str(exc_info))
        else:
            super().log_exception(*args, exc_info=exc_info, **kwargs)


def _in_openais_shape(error: web.HTTPException) -> web.Response:
    body = msgspec.json.encode(error_body(error.status, _first_line(error.text) or error.reason))
    return web.Response(status=error.status, body=body, content_type="application/json")


def _first_line(message: str | None) -> str:
    lines: Sequence[str] = (message or "").strip().splitlines()
    return lines[0].rstrip(":")[:200] if lines else ""
