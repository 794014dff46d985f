"""A connection to the tunnel's local port, which begins anew if the router has not got what was sent.

ssh accepts a connection at its Unix socket before it knows whether the router does, and reads nothing until then. If
the router does not accept, ssh closes the socket with what was sent unread, which the kernel reports as ECONNRESET. So
does the kernel of a router that ends before it has read a request. The same bytes can then go to where the router is.
"""

import asyncio
from collections.abc import Callable
from typing import cast

from ...core.net.byte_relay import Back, Front, Join

_UNREAD = (ConnectionResetError, BrokenPipeError)  # the other end has closed before, or without, reading everything
_MOST_KEPT = 1 << 20  # bytes of a request; a longer one is not sent twice


class LocalConnection(Front):
    """An accepted connection.

    Args:
        join: makes the other one; see `Front`.
        admits: whether it may be used at all.
        hold_s: for how long after its begin it may begin anew.
        again_s: pause before that.
    """

    def __init__(
        self, join: Join, admits: Callable[[asyncio.BaseTransport], bool], hold_s: float, again_s: float
    ) -> None:
        super().__init__(join)
        self._admits, self._again_s = admits, again_s
        self._loop = asyncio.get_running_loop()
        self._until = self._loop.time() + hold_s
        self._unanswered: bytes | None = b""  # what was sent; None as soon as something came back
        self._is_cut = False  # something came when the other connection was at its end
        self._meet(_WayToRouter())

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """As `Front`, if the connection is admitted; else it ends at once."""
        if self._admits(transport):
            super().connection_made(transport)
        else:
            cast(asyncio.Transport, transport).abort()

    def data_received(self, data: bytes) -> None:
        """Pass it on, and keep the beginning until something comes back."""
        back = self.peer.transport
        self._is_cut = self._is_cut or (back is not None and back.is_closing())
        if self._unanswered is not None:
            self._unanswered = self._unanswered + data if len(self._unanswered) + len(data) <= _MOST_KEPT else None
        super().data_received(data)

    def answered(self) -> None:
        """Something has come back."""
        self._unanswered = None

    def begins_anew(self, error: Exception | None) -> bool:
        """Look for the router again if the other connection has ended before the router had what was sent."""
        transport = self.transport
        is_unread = self._unanswered == b"" or self._is_cut or isinstance(error, _UNREAD)
        if self._unanswered is None or not is_unread or self._loop.time() >= self._until:
            return False
        if transport is None or transport.is_closing() or self._joining is None or not self._joining.done():
            return False
        transport.pause_reading()
        self._meet(_WayToRouter())
        self._is_cut = False
        self._early = self._unanswered
        self._joining = self._loop.create_task(self._join_again())
        return True

    def _meet(self, back: "_WayToRouter") -> None:
        self.peer = back
        back.peer = self

    async def _join_again(self) -> None:
        await asyncio.sleep(self._again_s)
        await self._join()


class _WayToRouter(Back):
    """The connection that is made for an accepted one."""

    def data_received(self, data: bytes) -> None:
        """Pass it on."""
        cast(LocalConnection, self.peer).answered()
        super().data_received(data)

    def connection_lost(self, error: Exception | None) -> None:
        """End the accepted connection, unless that begins anew."""
        if cast(LocalConnection, self.peer).begins_anew(error):
            self.transport = None
        else:
            super().connection_lost(error)
