"""The server for clients: accepts connections and keeps time for all of them."""

import asyncio
import socket
import ssl

from ...core.background.rounds import Rounds
from ...core.net.acceptor import SHUTDOWN_S, Acceptor
from ...core.net.connection_guard import Guard
from ...core.net.sockets import BACKLOG
from .bodies import BodyLimits
from .connection import Connection
from .messages import Handler
from .refusals import TO_PLAIN_HTTP
from .state import ServerState


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

    def __init__(
        self, handler: Handler, guard: Guard, bodies: BodyLimits | None = None, rounds: Rounds | None = None
    ) -> None:
        self._state = ServerState(handler, guard, bodies or BodyLimits())
        self._rounds = rounds or Rounds()
        self._acceptors: list[asyncio.Server | Acceptor] = []
        self._private: list[asyncio.Server | Acceptor] = []
        self._clock: asyncio.Task[None] | None = None

    @property
    def connections(self) -> int:
        """How many connections are open."""
        return len(self._state.connections)

    @property
    def held_bytes(self) -> int:
        """How much is held of the bodies of requests."""
        return self._state.bodies.held

    def protocol(self) -> Connection:
        """The protocol for a new connection of a client."""
        return Connection(self._state)

    def private_protocol(self) -> Connection:
        """The protocol for a new connection of one of our own programs, which has proven itself."""
        return Connection(self._state, private=True)

    async def listen(
        self, sock: socket.socket, context: ssl.SSLContext | None = None, *, private: bool = False
    ) -> None:
        """Accept connections of `sock`, a bound TCP or Unix socket, with TLS where there is a `context`."""
        protocol = self.private_protocol if private else self.protocol
        acceptors = self._private if private else self._acceptors
        if context is not None:
            sock.listen(BACKLOG)
            shutdown_s = SHUTDOWN_S if private else self._state.limits.idle_s
            answer = b"" if private else TO_PLAIN_HTTP
            acceptor = Acceptor(sock, context, protocol, shutdown_s=shutdown_s, to_plain_http=answer)
            acceptor.start()
            acceptors.append(acceptor)
        elif sock.family == socket.AF_UNIX:
            acceptors.append(await self._state.loop.create_unix_server(protocol, sock=sock, backlog=BACKLOG))
        else:
            acceptors.append(await self._state.loop.create_server(protocol, sock=sock, backlog=BACKLOG))

    def start_clock(self) -> None:
        """Call `tick` once a second from now on."""
        self._clock = self._state.loop.create_task(self._run_clock())

    def tick(self) -> None:
        """Let a second pass: end what has waited for too long."""
        self._state.tick()

    def let_go(self, lets_go: bool) -> None:
        """Whether each answer is to be its connection's last, although more connections are accepted."""
        self._state.closing = lets_go or self._state.closed

    @property
    def is_accepting(self) -> bool:
        """Whether clients' connections are accepted."""
        return bool(self._acceptors)

    def stop_accepting(self) -> None:
        """Accept no more clients, and close the sockets of `listen`; those that were accepted stay."""
        for acceptor in self._acceptors:
            acceptor.stop() if isinstance(acceptor, Acceptor) else acceptor.close()
        self._acceptors = []

    def close(self) -> None:
        """Accept no more, close what is idle, and each other connection after its answer."""
        self._state.closing = self._state.closed = True
        for acceptor in (*self._acceptors, *self._private):
            acceptor.close()
        self._acceptors, self._private = [], []
        for connection in list(self._state.connections):
            connection.close_if_idle()

    async def drained(self, timeout_s: float) -> bool:
        """Whether all connections are closed within `timeout_s` seconds. `close` comes before."""
        if self._state.connections:
            empty = self._state.empty = asyncio.Event()
            try:
                await asyncio.wait_for(empty.wait(), timeout_s)
            except TimeoutError:
                return False
        return True

    def abort(self) -> None:
        """Close everything at once."""
        if self._clock is not None:
            self._clock.cancel()
        for connection in list(self._state.connections):
            connection.cut()

    async def _run_clock(self) -> None:
        while True:
            await asyncio.sleep(1)
            with self._rounds.guarded("clock"):
                self.tick()
