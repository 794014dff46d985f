"""A relay's server that carries nothing: it says who it is, so that tests see which relay has answered."""

import asyncio
import os
import socket
import ssl
from collections.abc import Callable
from typing import Any, ClassVar

from slurminfer.router.control.board import Board
from slurminfer.router.control.counters import Counters
from slurminfer.router.control.messages import (
    BlamedRequests,
    FromRelay,
    Replaced,
    Report,
    Setup,
    Suspect,
    Tenants,
    View,
)


class FakeServer:
    """Answers every connection by "INDEX PID WORKERS" and closes it."""

    made: ClassVar[list["FakeServer"]] = []

    def __init__(
        self,
        setup: Setup,
        board: Board,
        listener: socket.socket,
        send: Callable[[FromRelay], None],
        tls: ssl.SSLContext | None,
    ) -> None:
        self.setup, self.board, self.listener, self.send, self.tls = setup, board, listener, send, tls
        self.seen: list[Any] = []
        self.servers: list[asyncio.Server] = []
        self.answered = 0
        self.is_closed = self.fails = False
        self.made.append(self)

    def view(self, view: View) -> None:
        self.seen.append(view)
        if self.fails:
            raise ValueError("a fault")

    def tenants(self, tenants: Tenants) -> None:
        self.seen.append(tenants)

    def blamed(self, blamed: BlamedRequests) -> None:
        self.seen.append(blamed)

    async def replaced(self, replaced: Replaced) -> None:
        self.seen.append(replaced)

    async def start(self) -> None:
        self.servers.append(await asyncio.start_server(self._answer, sock=self.listener, ssl=self.tls))

    async def accept_commands(self, listener: socket.socket, tls: ssl.SSLContext) -> None:
        self.servers.append(await asyncio.start_server(self._answer, sock=listener, ssl=tls))

    async def drain(self, seconds: float) -> None:
        for server in self.servers:
            server.close()

    def report(self) -> Report:
        return report(self.answered)

    async def close(self) -> None:
        await self.drain(0.0)
        self.is_closed = True

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.answered += 1
        self.board.row(self.setup.index).add(0, requests=1)
        self.send(Suspect(slot=self.setup.index, reason="x", kind="connect", at=0.0))
        workers = sum(len(view.workers) for view in self.seen[-1:] if isinstance(view, View))
        writer.write(f"{self.setup.index} {os.getpid()} {workers}\n".encode())
        await writer.drain()
        writer.close()


def report(answered: int) -> Report:
    return Report(counters=Counters(retries=answered), usage={}, queued={}, connections={}, rates={})
