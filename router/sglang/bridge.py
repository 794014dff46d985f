"""A port of 127.0.0.1 for each worker: sglang-router speaks HTTP over TCP, workers listen on sockets only we reach.

Every user of the node can connect to such a port, so a connection is passed on only if its other end is a socket of
this user. The kernel says whose it is.
"""

import asyncio
import socket
from pathlib import Path
from typing import cast

from ...core.errors import RunDirectoryError
from ...core.net.byte_relay import Back, Front, Join, own_unix_socket
from ...core.net.identity import client_context
from ...core.net.sockets import BACKLOG, listening_socket, watchful_socket
from ..control.messages import WorkerView
from .peers import is_own_client

_CONNECT_S = 3.0


class Bridge:
    """The port of one worker's life. `await start()` before use.

    Raises OSError, and RunDirectoryError where there is no way to the worker.
    """

    def __init__(self, worker: WorkerView) -> None:
        self.worker = worker
        self._join = _way_to(worker)
        self._listener = listening_socket("127.0.0.1")
        self._server: asyncio.Server | None = None
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    async def start(self) -> None:
        """Pass on what comes from now on. Raises OSError."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _OwnFront(self._join), sock=self._listener, backlog=BACKLOG)

    def close(self) -> None:
        """Accept no more; requests in flight go on."""
        if self._server is not None:
            self._server.close()
        self._listener.close()


class _OwnFront(Front):
    """A connection that ends at once unless a process of this user has made it."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if is_own_client(transport.get_extra_info("socket")):
            super().connection_made(transport)
        else:
            cast(asyncio.Transport, transport).abort()


def _way_to(worker: WorkerView) -> Join:
    """How to reach a worker. Raises RunDirectoryError where there is no way."""
    if worker.socket is not None and worker.host == socket.gethostname():
        return own_unix_socket(Path(worker.socket))
    if worker.url is None:
        raise RunDirectoryError(f"no way to the worker: the engine's socket is on {worker.host}")
    host, _, port = worker.url.removeprefix("https://").rpartition(":")
    context = client_context(Path(worker.identity))

    async def join(back: Back) -> None:
        loop = asyncio.get_running_loop()
        sock = watchful_socket((socket.AF_INET, socket.SOCK_STREAM, 0, "", (host, int(port))))
        sock.setblocking(False)
        try:
            async with asyncio.timeout(_CONNECT_S):
                await loop.sock_connect(sock, (host, int(port)))
                await loop.create_connection(lambda: back, sock=sock, ssl=context, server_hostname="")
        except BaseException:
            sock.close()
            raise

    return join
