"""What the data path asks of the kernel: enough sockets, and to hear of a node that died without a word."""

import resource
import socket
from contextlib import suppress

from aiohttp.connector import AddrInfoType

_SILENCE_S = 30  # between the last sign of a peer and its being given up


def watchful_socket(address: AddrInfoType) -> socket.socket:
    """A client's socket that fails within 30 s of its peer's power failure; otherwise a wait would last for ever."""
    family, kind, protocol, *_ = address
    sock = socket.socket(family, kind, protocol)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _SILENCE_S // 2)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, _SILENCE_S // 6)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
    # Keepalive is silent while sent data is not acknowledged; this is not.
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _SILENCE_S * 1000)
    return sock


def allow_many_sockets() -> None:
    """Raise the soft limit of open files to the hard one: many clusters allow 1,024 unless asked for more."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
