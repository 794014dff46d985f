"""Bytes from a connection of the gate to the engine's Unix socket and back, as they come.

Each side stops reading while the other cannot write. The end of either direction ends the connection: asyncio's TLS
cannot stay open in one direction only. What the engine has sent before its end still arrives.
"""

import asyncio
import os
from pathlib import Path
from typing import cast

from ...core.net.sockets import peer_uid

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


class Back(Side):
    """The connection to the engine."""

    def connection_lost(self, error: Exception | None) -> None:
        """End the front when all that the engine has sent has left."""
        if self.peer.transport is not None:
            self.peer.transport.close()


class Front(Side):
    """The connection of the router, whose handshake is done."""

    def __init__(self, engine: Path) -> None:
        super().__init__()
        self._engine = engine
        self._early = b""  # what came before the engine's connection was there
        self._joining: asyncio.Task[None] | None = None
        self.peer = Back()
        self.peer.peer = self

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Connect to the engine before anything is read."""
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
        """End the engine's connection at once, which makes the engine abort the request."""
        if self._joining is not None:
            self._joining.cancel()
        if self.peer.transport is not None:
            self.peer.transport.abort()

    async def _join(self) -> None:
        assert self.transport is not None
        loop = asyncio.get_running_loop()
        try:
            await loop.create_unix_connection(lambda: self.peer, str(self._engine))
        except OSError:  # the engine does not listen yet, or no more
            self.transport.abort()
            return
        if peer_uid(cast(asyncio.Transport, self.peer.transport).get_extra_info("socket")) != os.geteuid():
            cast(asyncio.Transport, self.peer.transport).abort()  # which ends the front as well
            return
        if self.transport.is_closing():
            cast(asyncio.Transport, self.peer.transport).abort()
            return
        if self._early:
            cast(asyncio.Transport, self.peer.transport).write(self._early)
            self._early = b""
        self.transport.resume_reading()
