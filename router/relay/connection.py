"""The connection to a worker, on which requests go only after the other end has proven that it is ours.

On the worker's own node that is its engine's Unix socket, whose process must be of this user. From another node it is
TLS to the worker's gate, where both ends have the identity that only this user can read (core/net/identity.py).
"""

import asyncio
import os
import socket
import ssl
from pathlib import Path
from typing import Any

import aiohttp
from yarl import URL

from ...core.errors import RunDirectoryError
from ...core.net.identity import client_context
from ...core.net.sockets import own_socket_fault, peer_uid, watchful_socket
from ...core.records import WorkerRecord
from ...core.rundir import RunDirectory
from .splice import SplicedRequest, SplicedResponse

CONNECT_TIMEOUT_S = 3.0
# Engines (uvicorn) close idle connections after 5 s: letting go earlier avoids sending into one that just closed.
KEEPALIVE_S = 2.0


class Connection:
    """All connections to one life of a worker, with the key of its engine. Generation has no time limit."""

    def __init__(self, connector: aiohttp.BaseConnector, origin: str, key: str) -> None:
        self._origin = origin
        self._session = aiohttp.ClientSession(
            connector=connector,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S),
            headers={"Authorization": f"Bearer {key}", "Accept-Encoding": "identity"},
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            request_class=SplicedRequest,
            response_class=SplicedResponse,
        )

    async def request(self, method: str, path: str, **options: Any) -> aiohttp.ClientResponse:
        """Send a request; `path` goes out as it is. Raises aiohttp.ClientError, OSError."""
        return await self._session.request(method, URL(self._origin + path, encoded=True), **options)

    async def close(self) -> None:
        """Close what is open. For a worker that has no request in flight."""
        await self._session.close()


async def connection_to(run: RunDirectory, record: WorkerRecord) -> Connection:
    """The way to the worker that `record` tells of; nothing is sent yet. Raises SlurminferError where there is none."""
    way = await asyncio.to_thread(_way, run, record)  # a shared filesystem may stand still
    if isinstance(way, Path):
        return Connection(_OwnSocketConnector(way), "http://worker", record.key)
    tls = aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEPALIVE_S, socket_factory=watchful_socket, ssl=way)
    assert record.url is not None
    return Connection(tls, record.url, record.key)


def _way(run: RunDirectory, record: WorkerRecord) -> Path | ssl.SSLContext:
    fault = f"the engine's socket is on {record.host}"
    if record.socket is not None and record.host == socket.gethostname():
        path = Path(record.socket)
        fault = own_socket_fault(path) or _unreachable(path)
        if not fault:
            return path
    if record.url is None:
        raise RunDirectoryError(f"no way to the worker: {fault}")
    if not record.url.startswith("https://"):
        raise RunDirectoryError(f"no way to the worker: expected https:// in its record, got {record.url[:80]!r}")
    return client_context(run.worker_identity_path(record.id, record.epoch))


def _unreachable(path: Path) -> str:
    """Why nobody answers at the socket, such as in a job with a private /tmp; empty if somebody does."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(CONNECT_TIMEOUT_S)
        try:
            probe.connect(str(path))
        except OSError as error:
            return f"{path}: {error.strerror or error}"
    return ""


class _OwnSocketConnector(aiohttp.UnixConnector):
    """Connects to a Unix socket if the process that listens there is this user's."""

    def __init__(self, path: Path) -> None:
        super().__init__(str(path), limit=0, keepalive_timeout=KEEPALIVE_S)

    async def _create_connection(self, *args: Any, **options: Any) -> aiohttp.client_proto.ResponseHandler:
        protocol = await super()._create_connection(*args, **options)
        assert protocol.transport is not None
        uid = peer_uid(protocol.transport.get_extra_info("socket"))
        if uid != os.geteuid():
            protocol.close()
            raise aiohttp.ClientConnectionError(f"{self.path} is a socket of user {uid}, not of this one")
        return protocol
