"""A relay as a process of its own, or as a task of the supervisor's event loop for tests."""

import asyncio
import gc
import socket
import ssl
from collections.abc import Callable

from ..control.board import Board
from ..control.messages import FromRelay, Setup
from ..control.relay_link import MakeServer, RelayLink, Server
from ..control.relays import Ends

_NEW_OBJECTS = 20_000  # between two garbage collections; by default it is 700, and each request in flight has about 30


def make_server(
    setup: Setup, board: Board, listener: socket.socket, send: Callable[[FromRelay], None], tls: ssl.SSLContext | None
) -> Server:
    """The server of the spec's `backend`; imported late, since the supervisor needs none of it."""
    if setup.router["backend"] == "sglang":
        from ..sglang.server import SglangServer

        return SglangServer(setup, board, listener, send, tls)
    from .server import RelayServer

    return RelayServer(setup, board, listener, send, tls)


async def run_relay(channel: int, board: int, listener: int, private_listener: int) -> None:
    """Be a relay, with inherited file descriptors, until the supervisor says that it is enough, or is gone."""
    sockets = [socket.socket(fileno=number) for number in (channel, listener, private_listener)]
    for sock in sockets[1:]:
        sock.setblocking(False)  # as it is already; a copy would else make it wait
    link = RelayLink(Board.attach(board), sockets[1], sockets[2], _first_server)
    await link.run(sockets[0])


def _first_server(
    setup: Setup, board: Board, listener: socket.socket, send: Callable[[FromRelay], None], tls: ssl.SSLContext | None
) -> Server:
    server = make_server(setup, board, listener, send, tls)
    settle_memory()
    return server


def settle_memory() -> None:
    """Let garbage collections look at what comes from now on only, and seldom: a request leaves no garbage to collect.

    For a process that is nothing but a relay.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_NEW_OBJECTS, 10, 10)


class RelayTask:
    """A relay in this event loop, over a real socket pair."""

    def __init__(self, ends: Ends, maker: MakeServer | None = None) -> None:
        channel = ends.channel.dup()
        link = RelayLink(ends.board, ends.listener.dup(), ends.private_listener.dup(), maker or make_server)
        self._task = asyncio.create_task(link.run(channel))

    def kill(self) -> None:
        """Cancel it."""
        self._task.cancel()

    async def ended(self) -> str:
        """Wait for its end; how it came."""
        await asyncio.wait({self._task})
        error = None if self._task.cancelled() else self._task.exception()
        return "ended" if error is None else f"failed: {error!r}"
