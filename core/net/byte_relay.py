"""Bytes from an accepted connection to another one and back, as they come.

Each side stops reading while the other cannot write. The end of either direction ends the connection: asyncio's TLS
cannot stay open in one direction only. What the engine has sent before its end still arrives.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import cast

from .sockets import peer_uid

_MOST_UNSENT = 64 * 1024  # bytes; beyond that the other side is not read


class Side(asyncio.Protocol):
    """One of the two connections, which passes on what it gets to its `peer`."""

    peer: "Side"

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Bound what waits to be sent."""
        self.transport = cast(asyncio.Transport, transport)
        self.transport.set_write_buffer_limits(high=_MOST_UNSENT)

    def data_received(self, data: bytes) -> None:
        """Pass it on."""
        transport = self.peer.transport
        if transport is not None:
            transport.write(data)

    def pause_writing(self) -> None:
        """Read no more from the peer, whose bytes cannot leave here."""
        if self.peer.transport is not None and not self.peer.transport.is_closing():
            self.peer.transport.pause_reading()

    def resume_writing(self) -> None:
        """Read from the peer again."""
        if self.peer.transport is not None and not self.peer.transport.is_closing():
            self.peer.transport.resume_reading()

    def connection_lost(self, error: Exception | None) -> None:
        """Let go of TLS and its buffers: the two sides hold each other until garbage is collected."""
        self.transport = None


class Back(Side):
    """The connection that is made for an accepted one."""

    def connection_lost(self, error: Exception | None) -> None:
        """End the front when all that came here has left."""
        super().connection_lost(error)
        if self.peer.transport is not None:
            self.peer.transport.close()


Join = Callable[[Back], Awaitable[None]]


class Front(Side):
    """An accepted connection, for which `join` makes the other one. `join` raises OSError where that fails."""

    def __init__(self, join: Join) -> None:
        super().__init__()
        self._join_back = join
        self._early = b""  # what came before the other connection was there
        self._joining: asyncio.Task[None] | None = None
        self.peer = Back()
        self.peer.peer = self

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Make the other connection before anything is read."""
        super().connection_made(transport)
        cast(asyncio.Transport, transport).pause_reading()
        self._joining = asyncio.get_running_loop().create_task(self._join())

    def data_received(self, data: bytes) -> None:
        """Pass it on, or keep what came with the handshake's last bytes."""
        if self.peer.transport is None:
            self._early += data
        else:
            self.peer.transport.write(data)

    def connection_lost(self, error: Exception | None) -> None:
        """End the other connection at once, which makes an engine abort the request."""
        super().connection_lost(error)
        if self._joining is not None:
            self._joining.cancel()
            self._joining = None  # a task that was cancelled keeps what its coroutine had
        if self.peer.transport is not None:
            self.peer.transport.abort()

    async def _join(self) -> None:
        front = cast(asyncio.Transport, self.transport)
        try:
            await self._join_back(cast(Back, self.peer))
        except OSError:  # nobody listens there yet, or no more
            if self.peer.transport is not None:
                self.peer.transport.abort()
            front.abort()
            return
        back = self.peer.transport
        if back is None or front.is_closing():  # one of them has ended meanwhile
            front.abort()
            if back is not None:
                back.abort()
            return
        if self._early:
            back.write(self._early)
            self._early = b""
        front.resume_reading()


def own_unix_socket(path: Path) -> Join:
    """How to reach the Unix socket at `path`, which must be served by a process of this user."""

    async def join(back: Back) -> None:
        await asyncio.get_running_loop().create_unix_connection(lambda: back, str(path))
        if peer_uid(cast(asyncio.Transport, back.transport).get_extra_info("socket")) != os.geteuid():
            raise PermissionError(f"{path} is served by another user")

    return join
