"""Connections to an endpoint anywhere, over TCP or TLS."""

import ssl
from urllib.parse import quote, urlsplit

from .....core.net.sockets import watch_peer
from .....router.http.pool import WorkerPool
from .....router.http.upstream import Upstream
from ..address import Address

# Below the 5 s after which uvicorn closes idle connections.
_IDLE_S = 2.0


class EndpointPool(WorkerPool):
    """Connections to one endpoint. To be made in a running event loop."""

    connect_timeout_s = 10.0

    def __init__(self, address: Address) -> None:
        super().__init__(_IDLE_S)
        parts = urlsplit(address.root)
        assert parts.hostname is not None  # check_url has seen it
        self.host, self.prefix = _host_header(parts.netloc), quote(parts.path, safe="/%:@!$&'()*+,;=~")
        self._name = parts.hostname
        self._port = parts.port or (443 if parts.scheme == "https" else 80)
        self._tls = (address.tls or ssl.create_default_context()) if parts.scheme == "https" else None

    async def _connect(self) -> Upstream:
        timeout_s = None if self._tls is None else self.connect_timeout_s
        transport, made = await self._loop.create_connection(
            lambda: Upstream(self), self._name, self._port, ssl=self._tls, ssl_handshake_timeout=timeout_s
        )
        watch_peer(transport.get_extra_info("socket"))
        return made

    def head(self, method: str, path: str, lines: bytes, length: int) -> bytes:
        """The head of a request, complete but for the blank line; `lines` are further lines of it."""
        first = f"{method} {self.prefix}{path} HTTP/1.1\r\nHost: {self.host}\r\n"
        return b"%b%bContent-Length: %d\r\n" % (first.encode(), lines, length)


def _host_header(netloc: str) -> str:
    host = netloc.rpartition("@")[2]
    return host if host.isascii() else host.encode("idna").decode()
