"""Accepting TLS connections of our own programs at a port that everybody on the network reaches.

Whoever does not have the identity (core/net/identity.py) is a stranger: it gets no further than the handshake, has
little time for it, and can neither use up descriptors nor fill the log.
"""

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress

from .sockets import watch_peer

_HANDSHAKE_S = 5.0
# When a connection ends without TLS's close_notify, uvloop discards what a paused reader has not read yet, so the peer
# gets long for it, if it has proven itself. A dead one is noticed by TCP keepalive.
SHUTDOWN_S = 600.0
_MOST_HANDSHAKES = 256
_ACCEPTED_AT_ONCE = 64
# Bytes of plain HTTP that are read after its answer, in all and at once.
_MOST_DISCARDED, _DISCARDED_AT_ONCE = 2**20, 2**16
_PAUSE_S = 0.1  # in accepting, when no descriptor is free
_REPORT_S = 60.0

_log = logging.getLogger(__name__)


class Acceptor:
    """Gives a protocol to every connection of `listener` that completes the handshake of `context`.

    When more connections are in their handshakes than `most_handshakes`, the oldest of these is closed. A peer has
    `shutdown_s` seconds to read the rest when its connection is closed. Who speaks plain HTTP gets `to_plain_http`, if
    there is such an answer.
    """

    def __init__(
        self,
        listener: socket.socket,
        context: ssl.SSLContext,
        protocol: Callable[[], asyncio.BaseProtocol],
        *,
        most_handshakes: int = _MOST_HANDSHAKES,
        handshake_s: float = _HANDSHAKE_S,
        shutdown_s: float = SHUTDOWN_S,
        to_plain_http: bytes = b"",
    ) -> None:
        self._listener, self._context, self._protocol = listener, context, protocol
        self._most_handshakes, self._handshake_s, self._shutdown_s = most_handshakes, handshake_s, shutdown_s
        self._to_plain_http = to_plain_http
        self._handshakes: dict[asyncio.Task[None], socket.socket] = {}  # the oldest first
        self._loop = asyncio.get_running_loop()
        self._pausing: asyncio.TimerHandle | None = None
        self._report_at = 0.0
        self.refused = 0

    def start(self) -> None:
        """Accept connections from now on. `listener` listens already."""
        self._listener.setblocking(False)
        self._loop.add_reader(self._listener, self._accept)

    def stop(self) -> None:
        """Accept no more, and close the listener; what was accepted goes on."""
        if self._pausing is not None:
            self._pausing.cancel()
        self._loop.remove_reader(self._listener)
        self._listener.close()

    def close(self) -> None:
        """Accept no more, and close the listener and what is in its handshake; connections with a protocol stay."""
        self.stop()
        while self._handshakes:
            self._close_oldest()

    def _accept(self) -> None:
        for _ in range(_ACCEPTED_AT_ONCE):
            try:
                connection, _ = self._listener.accept()
            except (BlockingIOError, InterruptedError):
                return
            except ConnectionError:
                continue
            except OSError:
                self._pause()
                return
            if len(self._handshakes) >= self._most_handshakes:
                self._close_oldest()
            task = self._loop.create_task(self._admit(connection))
            self._handshakes[task] = connection
            task.add_done_callback(self._settle)

    def _settle(self, task: asyncio.Task[None]) -> None:
        self._handshakes.pop(task, None)

    def _close_oldest(self) -> None:
        task = next(iter(self._handshakes))
        connection = self._handshakes.pop(task)
        task.cancel()
        self._refuse("too many handshakes at once")
        # `_admit` closes it, unless the task had not begun yet.
        task.add_done_callback(lambda _: connection.close())

    def _pause(self) -> None:
        """Pause because no descriptor is free; closing the oldest handshake frees one."""
        if self._handshakes:
            self._close_oldest()
        self._loop.remove_reader(self._listener)
        self._pausing = self._loop.call_later(_PAUSE_S, self.start)

    async def _admit(self, connection: socket.socket) -> None:
        try:
            connection.setblocking(False)
            watch_peer(connection)
            if self._to_plain_http:
                await self._shake_hands_or_answer(connection)
            else:
                await self._shake_hands(connection)
        except OSError as error:  # SSLError and TimeoutError are OSErrors
            with suppress(OSError):
                connection.close()
            self._refuse(str(error) or type(error).__name__)

    async def _shake_hands(self, connection: socket.socket) -> None:
        await self._loop.connect_accepted_socket(
            self._protocol,
            connection,
            ssl=self._context,
            ssl_handshake_timeout=self._handshake_s,
            ssl_shutdown_timeout=self._shutdown_s,
        )

    async def _shake_hands_or_answer(self, connection: socket.socket) -> None:
        with connection.dup() as kept:  # the event loop closes the other one when a handshake fails
            try:
                await self._shake_hands(connection)
            except ssl.SSLError as error:
                if error.reason == "HTTP_REQUEST":
                    await self._answer(kept)
                raise

    async def _answer(self, connection: socket.socket) -> None:
        """Answer plain HTTP; closing before all is read could reset the connection and lose the answer."""
        with suppress(OSError):
            async with asyncio.timeout(self._handshake_s):
                await self._loop.sock_sendall(connection, self._to_plain_http)
                connection.shutdown(socket.SHUT_WR)
                for _ in range(_MOST_DISCARDED // _DISCARDED_AT_ONCE):
                    if not await self._loop.sock_recv(connection, _DISCARDED_AT_ONCE):
                        break

    def _refuse(self, reason: str) -> None:
        self.refused += 1
        now = self._loop.time()
        if now >= self._report_at:
            self._report_at = now + _REPORT_S
            _log.warning("%d connections refused so far; the last one: %s", self.refused, reason[:200])
