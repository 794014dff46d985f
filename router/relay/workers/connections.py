"""The connections to a worker, on which requests go only after the other end has proven that it is ours.

On the worker's own node that is its engine's Unix socket, whose process must be of this user. From another node it is
TLS to the worker's gate, where both ends have the identity that only this user can read (core/net/identity.py).
"""

import asyncio
import socket
from pathlib import Path
from urllib.parse import urlsplit

from ....core.errors import SlurminferError
from ....core.net.identity import client_context
from ....core.net.sockets import own_socket_fault
from ...control.messages import WorkerView
from ...http.messages import ConnectError, Flow, Pool, Sink
from ...http.pool import SocketPool, TlsPool


def connect(view: WorkerView) -> Pool:
    """The connections to a worker; none is made yet."""
    return Connections(view)


class Connections:
    """A pool that is made when it is needed: it may have to read a file, for which no other request waits."""

    def __init__(self, view: WorkerView) -> None:
        self._view = view
        self._pool: Pool | None = None
        self._closed = False

    def try_send(self, head: bytes, body: bytes, sink: Sink) -> Flow | None:
        """Send a request at once on a free connection; None, with nothing sent, if there is none."""
        return None if self._pool is None else self._pool.try_send(head, body, sink)

    async def send(self, head: bytes, body: bytes, sink: Sink) -> Flow:
        """Send a request. Raises ConnectError."""
        if self._pool is None:
            self._pool = await self._made()
            if self._closed:
                self._pool.close()
        return await self._pool.send(head, body, sink)

    def close(self) -> None:
        """Close the idle connections, and the others as they become idle."""
        self._closed = True
        if self._pool is not None:
            self._pool.close()

    async def _made(self) -> Pool:
        view = self._view
        fault: str | None = f"the engine's socket is on {view.host}"
        if view.socket is not None and view.host == socket.gethostname():
            path = Path(view.socket)
            fault = own_socket_fault(path) or await asyncio.to_thread(_unreachable, path)
            if not fault:
                return SocketPool(path)
        if view.url is None:
            raise ConnectError(f"no way to the worker: {fault}")
        url = urlsplit(view.url)
        if url.scheme != "https" or url.hostname is None or url.port is None:
            raise ConnectError(f"no way to the worker: expected https://HOST:PORT in its record, got {view.url[:80]!r}")
        try:
            context = await asyncio.to_thread(client_context, Path(view.identity))
        except SlurminferError as error:
            raise ConnectError(str(error)) from error
        return TlsPool(url.hostname, url.port, context)


def _unreachable(path: Path) -> str:
    """Why nobody answers at the socket, such as in a job with a private /tmp; empty if somebody does."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(3.0)
        try:
            probe.connect(str(path))
        except OSError as error:
            return f"{path}: {error.strerror or error}"
    return ""
