"""The server for clients: accepts connections and keeps time for all of them."""

import asyncio
import logging
import socket
import ssl

from ...core.net.acceptor import Acceptor
from ...core.net.connection_guard import Guard
from ...core.net.sockets import BACKLOG, watch_peer
from .bodies import Bodies, BodyLimits
from .connection import Connection
from .heads import date_line
from .messages import Handler
from .waiting import Waiting

SILENCE_S = 60  # of a client in the middle of a body
_LINGER_S = 2  # for a client that still sends, to read why its request was refused

_log = logging.getLogger(__name__)


class Server:
    """Gives the requests of all connections to one handler. To be made and used in its event loop.

    server = Server(handler, Guard(limits_of_process(descriptors_each=2)))
    await server.listen(sock)          # may be called for several sockets
    server.start_clock()
    ...
    server.close()                     # no new connections; each answer is its connection's last
    await server.drained(20)
    server.abort()
    """

    def __init__(self, handler: Handler, guard: Guard, bodies: BodyLimits | None = None) -> None:
        self.handler, self.guard, self.limits = handler, guard, guard.limits
        self.bodies = Bodies(bodies or BodyLimits())
        self.loop = asyncio.get_running_loop()
        self.closing = False
        self.date_line = date_line()
        self.idle: Waiting[Connection] = Waiting(int(guard.limits.idle_s))  # between two requests, or closing
        self.reading: Waiting[Connection] = Waiting(SILENCE_S)  # in the middle of a body
        self.lingering: Waiting[Connection] = Waiting(_LINGER_S)
        self._connections: set[Connection] = set()
        self._acceptors: list[asyncio.Server | Acceptor] = []
        self._clock: asyncio.Task[None] | None = None
        self._empty: asyncio.Event | None = None

    @property
    def connections(self) -> int:
        """How many connections are open."""
        return len(self._connections)

    def protocol(self) -> Connection:
        """The protocol for a new connection of a client."""
        return Connection(self)

    def private_protocol(self) -> Connection:
        """The protocol for a new connection of one of our own programs, which has proven itself."""
        return Connection(self, private=True)

    async def listen(
        self, sock: socket.socket, context: ssl.SSLContext | None = None, *, private: bool = False
    ) -> None:
        """Accept connections of `sock`, a bound TCP or Unix socket, with TLS where there is a `context`."""
        protocol = self.private_protocol if private else self.protocol
        if context is not None:
            sock.listen(BACKLOG)
            acceptor = Acceptor(sock, context, protocol)
            acceptor.start()
            self._acceptors.append(acceptor)
        elif sock.family == socket.AF_UNIX:
            self._acceptors.append(await self.loop.create_unix_server(protocol, sock=sock, backlog=BACKLOG))
        else:
            self._acceptors.append(await self.loop.create_server(protocol, sock=sock, backlog=BACKLOG))

    def start_clock(self) -> None:
        """Call `tick` once a second from now on."""
        self._clock = self.loop.create_task(self._run_clock())

    def tick(self) -> None:
        """Let a second pass: end what has waited for too long."""
        self.date_line = date_line()
        self.guard.tick()
        for connection in self.idle.tick():
            connection.cut()
        for connection in self.reading.tick():
            connection.give_up()
        for connection in self.lingering.tick():
            connection.stop_lingering()

    def close(self) -> None:
        """Accept no more, close what is idle, and each other connection after its answer."""
        self.closing = True
        while self._acceptors:
            self._acceptors.pop().close()
        for connection in list(self._connections):
            connection.close_if_idle()

    async def drained(self, timeout_s: float) -> bool:
        """Whether all connections are closed within `timeout_s` seconds. `close` comes before."""
        if self._connections:
            self._empty = asyncio.Event()
            try:
                await asyncio.wait_for(self._empty.wait(), timeout_s)
            except TimeoutError:
                return False
        return True

    def abort(self) -> None:
        """Close everything at once."""
        if self._clock is not None:
            self._clock.cancel()
        for connection in list(self._connections):
            connection.cut()

    # Called by connections.

    def opened(self, connection: Connection) -> None:
        """Take a new connection in."""
        sock = connection.transport.get_extra_info("socket")
        if sock is not None and sock.family in (socket.AF_INET, socket.AF_INET6):
            watch_peer(sock)
        self._connections.add(connection)
        self.idle.put(connection)

    def rest(self, connection: Connection) -> None:
        """Wait for the next request of a connection, if there is to be one."""
        if self.closing:
            connection.transport.close()
        self.idle.put(connection)

    def lost(self, connection: Connection) -> None:
        """Forget a connection that is closed."""
        self._connections.discard(connection)
        for waiting in (self.idle, self.reading, self.lingering):
            waiting.drop(connection)
        if self._empty is not None and not self._connections:
            self._empty.set()

    async def _run_clock(self) -> None:
        while True:
            await asyncio.sleep(1)
            self.tick()
