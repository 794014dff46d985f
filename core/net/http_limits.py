"""Limits on the connections of an aiohttp server, so that peers without a key cannot use up its descriptors.

A connection is a *stranger* until the application has called `trust` for one of its requests, which it does as soon as
the head has shown the right key. A stranger has 10 s. When connections are too many, the oldest stranger is closed,
then the trusted connection that has been idle for longest. While all have requests in flight, new ones are closed.

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
import resource
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from aiohttp import web

from ..openai import error_body

_log = logging.getLogger(__name__)
_MOST_CONNECTIONS = 2**16
_REPORT_TICKS = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionLimits:
    """How many connections, for how long. Times are in seconds in which the event loop runs: a stall does not count."""

    connections: int  # open at once
    strangers_per_source: int  # of one address; connections of Unix sockets have none
    stranger_s: int = 10  # until the application must have trusted a request, its head has to come within this time
    idle_s: float = 75.0  # of a trusted connection between two requests; proxies reuse connections for up to 60 s
    discarded_bytes: int = 8 * 2**20  # read from a connection while no trusted request is being answered
    line_bytes: int = 8190  # of the request line, and of one header
    headers: int = 100
    head_bytes: int = 64 * 2**10  # of a request's head; aiohttp itself bounds each line only


def limits_of_process(*, spare: int = 64, descriptors_each: int = 1) -> ConnectionLimits:
    """Limits within the descriptors that this process may have open (RLIMIT_NOFILE's soft limit).

    Args:
        spare: descriptors kept free for files and for connections that the process makes itself.
        descriptors_each: what one connection needs in all; 2 where a connection to another server goes with it.
    """
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = soft - len(list(Path("/proc/self/fd").iterdir())) - spare
    connections = _MOST_CONNECTIONS if soft == resource.RLIM_INFINITY else max(free // descriptors_each, 8)
    connections = min(connections, _MOST_CONNECTIONS)
    return ConnectionLimits(connections=connections, strangers_per_source=max(connections // 2, 4))


class ConnectionGuard:
    """The connections of one server, in the order in which they may be closed."""

    def __init__(self, limits: ConnectionLimits) -> None:
        self.limits = limits
        self._strangers: dict[_Connection, None] = {}  # dicts as ordered sets: oldest first
        self._by_source: dict[str, dict[_Connection, None]] = {}
        self._idle: dict[_Connection, None] = {}  # trusted, without a request
        self._busy: set[_Connection] = set()  # trusted, with a request
        self._ticks = 0  # seconds, without those in which the event loop stood still
        self._malformed = 0  # requests since the last line of log about them
        self._servers: list[asyncio.Server] = []
        self._clock: asyncio.Task[None] | None = None

    @property
    def counts(self) -> dict[str, int]:
        """Open connections by state: stranger, idle, busy."""
        return {"stranger": len(self._strangers), "idle": len(self._idle), "busy": len(self._busy)}

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
            self._forget(connection)
            connection.discarded = 0
            connection.trusted = connection.busy = True
            self._busy.add(connection)

    def tick(self) -> None:
        """Close strangers whose time is over. Called once a second."""
        self._ticks += 1
        expired = []
        for connection in self._strangers:
            if self._ticks - connection.since < self.limits.stranger_s:
                break
            expired.append(connection)
        for connection in expired:
            self._cut(connection)
        if self._ticks % _REPORT_TICKS == 0:
            if self._malformed > 1:
                _log.warning("%d more malformed HTTP requests in the last minute", self._malformed - 1)
            self._malformed = 0

    # Called by _Connection.

    def opened(self, connection: "_Connection") -> None:
        """Take a new connection in, at the cost of another if there are too many."""
        connection.since = self._ticks
        self._strangers[connection] = None
        if connection.source:
            same = self._by_source.setdefault(connection.source, {})
            same[connection] = None
            if len(same) > self.limits.strangers_per_source:
                self._cut(next(iter(same)))
        if len(self._strangers) + len(self._idle) + len(self._busy) > self.limits.connections:
            self._cut(self._least_worth(connection))

    def finished(self, connection: "_Connection") -> None:
        """Note that a response has been sent."""
        if connection in self._busy:
            self._busy.remove(connection)
            self._idle[connection] = None
            connection.busy = False

    def lost(self, connection: "_Connection") -> None:
        """Note that a connection is closed."""
        self._forget(connection)

    def malformed(self, source: str, message: str) -> None:
        """Log the first bad request of a minute, and count the others."""
        if not self._malformed:
            _log.warning("malformed HTTP request from %s: %.200r", source or "the Unix socket", message)
        self._malformed += 1

    def _least_worth(self, newest: "_Connection") -> "_Connection":
        """The oldest stranger; if there is none but `newest`, the connection that has been idle for longest."""
        oldest = next(iter(self._strangers))
        return oldest if oldest is not newest else next(iter(self._idle), newest)

    def _cut(self, connection: "_Connection") -> None:
        self._forget(connection)
        if connection.transport is not None:
            connection.transport.abort()

    def _forget(self, connection: "_Connection") -> None:
        self._strangers.pop(connection, None)
        self._idle.pop(connection, None)
        self._busy.discard(connection)
        same = self._by_source.get(connection.source, {})
        same.pop(connection, None)
        if not same:
            self._by_source.pop(connection.source, None)

    async def _run_clock(self) -> None:
        while True:
            await asyncio.sleep(1)
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
        if not self.busy:
            self.discarded += len(data)
            if self.discarded > self.guard.limits.discarded_bytes and self.transport is not None:
                self.transport.abort()
                return
        before = self._request_count
        super().data_received(data)
        if self._waiter is None or self._request_count != before:  # a request is being answered
            self._head_bytes = 0
            return
        self._head_bytes += len(data)
        if self._head_bytes > self.guard.limits.head_bytes and self.transport is not None:
            self.guard.malformed(self.source, f"a head of more than {self.guard.limits.head_bytes} bytes")
            self.transport.abort()

    async def finish_response(self, *args: Any, **kwargs: Any) -> Any:
        """Send the response; the connection is idle afterwards."""
        try:
            return await super().finish_response(*args, **kwargs)
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


def _first_line(message: str | None) -> str:
    lines: Sequence[str] = (message or "").strip().splitlines()
    return lines[0].rstrip(":")[:200] if lines else ""
