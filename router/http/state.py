"""What all connections of a server share."""

import asyncio
import socket
from typing import Protocol

from ...core.net.connection_guard import Guard
from ...core.net.sockets import watch_peer
from .bodies import Bodies, BodyLimits
from .heads import date_line
from .messages import Handler
from .waiting import Waiting

SILENCE_S = 60  # of a client in the middle of a body
# A client that has not read 64 KiB within this time, while there is more for it, must not hold a worker any longer.
UNREAD_S = 600
LINGER_S = 5  # for a client that still sends, to read why its request was refused


class Client(Protocol):
    """What the state of a server knows of one of its connections."""

    transport: asyncio.Transport

    def cut(self) -> None:
        """Close the connection at once."""

    def give_up(self) -> None:
        """Nothing has come for too long, in the middle of a body."""

    def end_idle(self) -> None:
        """Nothing has come for too long between two requests, or an answer that is complete was not read."""

    def check_reading(self) -> None:
        """Close the connection unless the client has read enough since this was called last."""

    def stop_lingering(self) -> None:
        """The client has had the time to read the last answer."""

    def close_if_idle(self) -> None:
        """Close the connection unless a request is being received or answered."""

    def __hash__(self) -> int: ...


class ServerState:
    """The connections of a server, how long they may wait, and what their requests hold."""

    def __init__(self, handler: Handler, guard: Guard, bodies: BodyLimits) -> None:
        self.handler, self.guard, self.limits = handler, guard, guard.limits
        self.bodies = Bodies(bodies)
        self.loop = asyncio.get_running_loop()
        self.closing = False  # each answer is its connection's last
        self.closed = False  # and no connection is waited for
        self.date_line = date_line()
        self.idle: Waiting[Client] = Waiting(int(guard.limits.idle_s))  # between two requests, or closing
        self.reading: Waiting[Client] = Waiting(SILENCE_S)  # in the middle of a body
        self.unread: Waiting[Client] = Waiting(UNREAD_S)  # does not read what there is for it
        self.lingering: Waiting[Client] = Waiting(LINGER_S)
        self.connections: set[Client] = set()
        self.empty: asyncio.Event | None = None  # set when the last connection is closed

    def tick(self) -> None:
        """Let a second pass: end what has waited for too long."""
        self.date_line = date_line()
        self.guard.tick()
        for connection in self.idle.tick():
            connection.end_idle()
        for connection in self.reading.tick():
            connection.give_up()
        for connection in self.unread.tick():
            connection.check_reading()
        for connection in self.lingering.tick():
            connection.stop_lingering()

    def opened(self, connection: Client) -> None:
        """Take a new connection in."""
        sock = connection.transport.get_extra_info("socket")
        if sock is not None and sock.family in (socket.AF_INET, socket.AF_INET6):
            watch_peer(sock)
        self.connections.add(connection)
        self.idle.put(connection)

    def rest(self, connection: Client) -> None:
        """Wait for the next request of a connection, if there is to be one."""
        if self.closed:
            connection.transport.close()
        self.idle.put(connection)

    def lost(self, connection: Client) -> None:
        """Forget a connection that is closed."""
        self.connections.discard(connection)
        for waiting in (self.idle, self.reading, self.unread, self.lingering):
            waiting.drop(connection)
        if self.empty is not None and not self.connections:
            self.empty.set()
