"""The connections to one life of a worker, used again and again."""

import asyncio
import errno
import os
import socket
import ssl
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path

from ...core.net.sockets import peer_uid, watch_peer
from .messages import ConnectError, Flow, Sink
from .upstream import Exchange, Upstream

CONNECT_TIMEOUT_S = 3.0
# Engines close an idle connection after 5 s (uvicorn) or 75 s (the native one), and the gate closes the router's end
# with it. A request that meets the closing half-way is sent again, so these only bound what is kept for nothing.
_IDLE_SOCKET_S, _IDLE_TLS_S = 2.0, 60.0
_FULL_BACKLOG_S = 0.01  # between two tries at a Unix socket whose engine is slow to accept
_OWN_FAULTS = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS, errno.EADDRNOTAVAIL}


class WorkerPool(ABC):
    """Implements `messages.Pool`, for whatever way the connections are made."""

    connect_timeout_s = CONNECT_TIMEOUT_S

    def __init__(self, idle_s: float, clock: Callable[[], float] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        self._idle_s, self._clock = idle_s, clock or self._loop.time
        self._idle: list[Upstream] = []  # the one that was used last at the end
        self._sweeping: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False

    @abstractmethod
    async def _connect(self) -> Upstream:
        """A new connection. Raises OSError, ConnectError."""

    def try_send(self, head: bytes, body: bytes, sink: Sink) -> Flow | None:
        """Send a request at once on a free connection; None, with nothing sent, if there is none.

        `head` is complete but for the blank line. If the connection ends before any byte of the answer, the request is
        sent once more on a new one.
        """
        connection = self._take()
        if connection is None:
            return None
        exchange = Exchange(head, body, sink)
        exchange.send_on(connection)
        return exchange

    async def send(self, head: bytes, body: bytes, sink: Sink) -> Flow:
        """Send a request on a free or a new connection, like `try_send`. Raises ConnectError."""
        exchange = Exchange(head, body, sink)
        exchange.send_on(self._take() or await self._new())
        return exchange

    def close(self) -> None:
        """Close the idle connections, and the others as they become idle."""
        self._closed = True
        if self._sweeping is not None:
            self._sweeping.cancel()
            self._sweeping = None
        for connection in self._idle:
            connection.transport.abort()
        self._idle.clear()

    @property
    def idle(self) -> int:
        """How many connections wait for a request."""
        return len(self._idle)

    def sweep(self) -> None:
        """Close connections that have been idle for too long."""
        deadline = self._clock() - self._idle_s
        kept = [connection for connection in self._idle if connection.idle_since > deadline]
        for connection in self._idle[: len(self._idle) - len(kept)]:
            connection.transport.abort()
        self._idle = kept

    # Called by connections.

    def release(self, connection: Upstream) -> None:
        """Keep a connection whose answer is complete for the next request."""
        if self._closed:
            connection.transport.abort()
            return
        connection.idle_since = self._clock()
        self._idle.append(connection)
        if self._sweeping is None:
            self._sweeping = self._loop.call_later(self._idle_s, self._sweep_again)

    def forget(self, connection: Upstream) -> None:
        """Note that a connection is closed."""
        if connection in self._idle:
            self._idle.remove(connection)

    def send_again(self, exchange: Exchange) -> None:
        """Send a request on a new connection, as the old one was closed before the request came."""
        exchange.connection = None
        task = self._loop.create_task(self._send_again(exchange))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _send_again(self, exchange: Exchange) -> None:
        try:
            connection = await self._new()
        except ConnectError as error:
            exchange.lose(error)
            return
        if exchange.over:
            self.release(connection)
        else:
            exchange.send_on(connection)

    def _take(self) -> Upstream | None:
        while self._idle:
            connection = self._idle.pop()
            if not connection.transport.is_closing() and self._clock() - connection.idle_since < self._idle_s:
                connection.reused = True
                return connection
            connection.transport.abort()
        return None

    async def _new(self) -> Upstream:
        try:
            async with asyncio.timeout(self.connect_timeout_s):
                connection = await self._connect()
        except TimeoutError as error:
            raise ConnectError(f"no connection within {self.connect_timeout_s:g} s") from error
        except OSError as error:
            reason = error.strerror or str(error) or type(error).__name__
            raise ConnectError(f"no connection: {reason}", own_fault=error.errno in _OWN_FAULTS) from error
        if connection.transport.is_closing():
            raise ConnectError("the connection was closed at once")
        return connection

    def _sweep_again(self) -> None:
        self.sweep()
        self._sweeping = self._loop.call_later(self._idle_s, self._sweep_again) if self._idle else None


class SocketPool(WorkerPool):
    """Connections to the Unix socket of an engine on this node, whose process must be of this user."""

    def __init__(self, path: Path, *, idle_s: float = _IDLE_SOCKET_S, clock: Callable[[], float] | None = None) -> None:
        super().__init__(idle_s, clock)
        self._path = path

    async def _connect(self) -> Upstream:
        connection = await self._reach()
        uid = peer_uid(connection.transport.get_extra_info("socket"))
        if uid != os.geteuid():
            connection.transport.abort()
            raise ConnectError(f"{self._path} is a socket of user {uid}, not of this one")
        return connection

    async def _reach(self) -> Upstream:
        while True:
            try:
                _, made = await self._loop.create_unix_connection(lambda: Upstream(self), str(self._path))
                return made
            except BlockingIOError:  # its backlog is full
                await asyncio.sleep(_FULL_BACKLOG_S)


class TlsPool(WorkerPool):
    """Connections to the gate of a worker on another node, where both ends have the worker's identity."""

    def __init__(
        self,
        host: str,
        port: int,
        context: ssl.SSLContext,
        *,
        idle_s: float = _IDLE_TLS_S,
        clock: Callable[[], float] | None = None,
    ) -> None:
        super().__init__(idle_s, clock)
        self._address, self._context = (host, port), context

    async def _connect(self) -> Upstream:
        family, kind, protocol, _, address = (await self._loop.getaddrinfo(*self._address, type=socket.SOCK_STREAM))[0]
        sock = socket.socket(family, kind, protocol)
        try:
            sock.setblocking(False)
            watch_peer(sock)
            await self._loop.sock_connect(sock, address)
            _, made = await self._loop.create_connection(
                lambda: Upstream(self),
                sock=sock,
                ssl=self._context,
                server_hostname=self._address[0],
                ssl_handshake_timeout=CONNECT_TIMEOUT_S,
            )
        except BaseException:
            sock.close()
            raise
        return made
