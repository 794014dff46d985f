"""Sockets: enough of them, ports that are kept for somebody, and connections that notice when a node has died."""

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


def hold_port(address: str) -> socket.socket:
    """A socket that is bound to a free port of `address`, and never listens: the port is `getsockname()[1]`.

    While it is open, the kernel gives the port to no one else who asks for any, such as the other jobs of the node. An
    engine that asks for just this one gets it, if it sets SO_REUSEADDR as servers do. So does anybody else who asks for
    it: whoever listens first has it, and the caller tries another.
    """
    held = socket.socket()
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    held.bind((address, 0))
    return held


def is_port_free(address: str, port: int) -> bool:
    """Whether nobody listens on `port` now; whoever only holds it does not count."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError:
            return False
    return True
