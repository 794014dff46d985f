"""The local end of a tunnel: each new connection goes where the router is then, and waits while there is none."""

import asyncio
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import cast
from weakref import WeakSet

from ...core.net.byte_relay import Back
from ...core.net.peer_user import PeerUsers
from ...core.net.sockets import BACKLOG, watch_peer
from .connection import LocalConnection

# Clients of generation requests wait for minutes; a router that Slurm requeues is back within this time as a rule.
HOLD_S = 120.0
_AGAIN_S = 0.25

Route = Callable[[Back], Awaitable[None]]  # connects the given protocol to the router, or raises OSError


class Target:
    """Where new connections go at present. For one event loop."""

    def __init__(self) -> None:
        self._route: Route | None = None
        self._changed = asyncio.Event()

    @property
    def route(self) -> Route | None:
        """The way to the router; None while there is none."""
        return self._route

    def set(self, route: Route | None) -> None:
        """Send new connections this way, those that wait included."""
        self._route = route
        self._changed.set()
        self._changed = asyncio.Event()

    async def change(self) -> None:
        """Wait until `set` is called."""
        await self._changed.wait()


class Relay:
    """Passes bytes between this user's connections to a listening socket and the target.

    Args:
        listener: listens already, at an IPv4 address; it is closed by `close`.
        target: where connections go.
        refused: called for each connection of another user, as far as the kernel tells whose they are.
        hold_s: how long a connection waits for a router before it is closed.
        again_s: between two attempts to reach a router that does not accept.
    """

    def __init__(
        self,
        listener: socket.socket,
        target: Target,
        refused: Callable[[], None],
        *,
        hold_s: float = HOLD_S,
        again_s: float = _AGAIN_S,
    ) -> None:
        self._listener, self._target, self._refused = listener, target, refused
        self._hold_s, self._again_s = hold_s, again_s
        self._users = PeerUsers()
        self._fronts: WeakSet[LocalConnection] = WeakSet()
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Accept connections from now on."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._front, sock=self._listener, backlog=BACKLOG)

    def close(self) -> None:
        """Accept no more, and end all connections."""
        if self._server is not None:
            self._server.close()
        self._users.close()
        for front in list(self._fronts):
            if front.transport is not None:
                front.transport.abort()

    def _front(self) -> LocalConnection:
        front = LocalConnection(self._join, self._admits, self._hold_s, self._again_s)
        self._fronts.add(front)
        return front

    def _admits(self, transport: asyncio.BaseTransport) -> bool:
        if not self._users.is_strangers(transport.get_extra_info("socket")):
            return True
        self._refused()
        return False

    async def _join(self, back: Back) -> None:
        """Reach the router, wherever it is. Raises TimeoutError, an OSError, where that takes too long."""
        async with asyncio.timeout(self._hold_s):
            while not await self._try(back):
                pass

    async def _try(self, back: Back) -> bool:
        route = self._target.route
        if route is None:
            await self._target.change()
            return False
        try:
            await route(back)
        except OSError:  # it has just ended, or starts again at the same place
            await self._pause()
            return False
        return True

    async def _pause(self) -> None:
        try:
            async with asyncio.timeout(self._again_s):
                await self._target.change()
        except TimeoutError:
            return


def over_tcp(host: str, port: int) -> Route:
    """The way to a router that this machine can reach."""

    async def connect(back: Back) -> None:
        transport, _ = await asyncio.get_running_loop().create_connection(lambda: back, host, port)
        watch_peer(cast(socket.socket, transport.get_extra_info("socket")))

    return connect


def over_socket(path: Path) -> Route:
    """The way through a Unix socket of this user's ssh, in a folder that only this user can enter."""

    async def connect(back: Back) -> None:
        await asyncio.get_running_loop().create_unix_connection(lambda: back, str(path))

    return connect
