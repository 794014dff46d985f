"""The relay's side: from the first message of the supervisor to the last report."""

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

from ...core.background.rounds import Rounds
from ...core.net.certificates import context_for_clients, renew
from ...core.net.identity import server_context_of
from .board import Board
from .channel import relay_end
from .messages import BlamedRequests, Certificates, Drain, FromRelay, Replaced, Report, Setup, Tenants, ToRelay, View

_REPORT_S = 1.0
# For what is in flight when the supervisor has died. Another router serves meanwhile.
_ORPHAN_S = 600.0
_LAST_REPORT_S = 1.0

_log = logging.getLogger(__name__)


class Server(Protocol):
    """What a relay does; router/relay/server.py."""

    def view(self, view: View) -> None:
        """Take the workers that there are."""

    def tenants(self, tenants: Tenants) -> None:
        """Take the tenants that there are."""

    def blamed(self, blamed: BlamedRequests) -> None:
        """Take the requests that workers were lost under."""

    async def replaced(self, replaced: Replaced) -> None:
        """Let clients go to another router, or keep them again."""

    async def start(self) -> None:
        """Accept clients. Called once, after the first `view` and `tenants`."""

    async def accept_commands(self, listener: socket.socket, tls: ssl.SSLContext) -> None:
        """Accept our own commands too. Called once, after `start`."""

    async def drain(self, seconds: float) -> None:
        """Close the listeners and wait until what is in flight is finished, for up to `seconds`."""

    def report(self) -> Report:
        """All that has been counted."""

    async def close(self) -> None:
        """Close the listeners, and break off what is still in flight."""


# Setup, board, listener, what sends to the supervisor, TLS for clients -> the relay's server.
MakeServer = Callable[[Setup, Board, socket.socket, Callable[[FromRelay], None], ssl.SSLContext | None], Server]


class RelayLink:
    """A relay's life at its end of the channel."""

    def __init__(
        self, board: Board, listener: socket.socket, private_listener: socket.socket, make_server: MakeServer
    ) -> None:
        self._board, self._make_server = board, make_server
        self._listener, self._private_listener = listener, private_listener
        self._messages: asyncio.Queue[ToRelay | None] = asyncio.Queue()  # None: the supervisor is gone
        self._over = asyncio.Event()  # the channel has ended
        self._told: dict[type, ToRelay] = {}  # the last message of each kind
        self._tls: ssl.SSLContext | None = None
        self._server: Server | None = None
        self._accepts_commands = False
        self._rounds = Rounds()

    async def run(self, channel: socket.socket) -> None:
        """Serve until the supervisor says that it is enough, or is gone. Owns `channel` and the listeners."""
        self._channel = await relay_end(channel, self._messages.put_nowait, self._lose)
        reporting = asyncio.create_task(self._report_regularly())
        try:
            await self._serve()
        finally:
            reporting.cancel()
            if self._server is not None:
                await self._server.close()
                self._channel.send(self._server.report())
            for sock in (self._listener, self._private_listener):
                sock.close()
            self._channel.close()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._over.wait(), _LAST_REPORT_S)

    def _lose(self, error: Exception | None) -> None:
        self._over.set()
        self._messages.put_nowait(None)

    async def _serve(self) -> None:
        while (message := await self._messages.get()) is not None:
            if isinstance(message, Drain):
                return await self._drain(message.seconds)
            self._told[type(message)] = message
            if self._server is None:
                await self._start()
            else:
                await self._hand(message)
            await self._accept_commands()
        _log.warning("the router's supervisor is gone; what is in flight is finished, nothing else is accepted")
        await self._drain(_ORPHAN_S)

    async def _drain(self, seconds: float) -> None:
        if self._server is not None:
            await self._server.drain(seconds)

    async def _start(self) -> None:
        """Begin to serve, once all is known that is needed for it."""
        setup, certificates = self._told.get(Setup), self._told.get(Certificates)
        if not isinstance(setup, Setup) or not self._told.keys() >= {View, Tenants}:
            return
        if setup.router["tls"] != "off":
            if not isinstance(certificates, Certificates) or certificates.clients is None:
                return
            self._tls = context_for_clients(certificates.clients)
        self._server = self._make_server(setup, self._board, self._listener, self._channel.send, self._tls)
        for message in self._told.values():
            await self._hand(message)
        await self._server.start()
        if isinstance(replaced := self._told.get(Replaced), Replaced):
            await self._server.replaced(replaced)

    async def _hand(self, message: ToRelay) -> None:
        assert self._server is not None
        if isinstance(message, View):
            self._server.view(message)
        elif isinstance(message, Tenants):
            self._server.tenants(message)
        elif isinstance(message, BlamedRequests):
            self._server.blamed(message)
        elif isinstance(message, Replaced):
            await self._server.replaced(message)
        elif isinstance(message, Certificates) and message.clients is not None and self._tls is not None:
            renew(self._tls, message.clients)

    async def _accept_commands(self) -> None:
        found = self._told.get(Certificates)
        if self._server is None or self._accepts_commands or not isinstance(found, Certificates):
            return
        if found.commands is not None:
            self._accepts_commands = True
            await self._server.accept_commands(self._private_listener, server_context_of(found.commands))

    async def _report_regularly(self) -> None:
        while True:
            await asyncio.sleep(_REPORT_S)
            with self._rounds.guarded("report"):
                if self._server is not None:
                    self._channel.send(self._server.report())
