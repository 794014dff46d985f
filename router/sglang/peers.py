"""Whose process is at the other end of a TCP connection within this machine (proc(5), /proc/net/tcp)."""

import os
import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_SOCKETS = Path("/proc/net/tcp")
_LISTEN = "0A"
_NOBODY = "00000000:0000"


@dataclass(frozen=True, slots=True)
class _Row:
    """An IPv4 socket of this network namespace."""

    local: str
    remote: str
    state: str
    uid: int


def is_own_client(connection: socket.socket) -> bool:
    """Whether the accepted `connection` was made by a process of this user on this machine."""
    try:
        ends = _hex(connection.getpeername()), _hex(connection.getsockname())
        return any((row.local, row.remote) == ends and row.uid == os.geteuid() for row in _rows())
    except OSError:  # the connection has ended
        return False


def is_own_server(connection: socket.socket) -> bool:
    """Whether `connection` was made to a process of this user on this machine."""
    try:
        ends = _hex(connection.getpeername()), _hex(connection.getsockname())
        # Some kernels call a connection root's until it is accepted.
        of_others = any((row.local, row.remote) == ends and row.uid not in (0, os.geteuid()) for row in _rows())
        return not of_others and is_own_listener(connection.getpeername())
    except OSError:
        return False


def is_own_listener(address: tuple[str, int]) -> bool:
    """Whether a process of this user listens at `address`."""
    ends = _hex(address), _NOBODY
    return any((row.local, row.remote) == ends and row.state == _LISTEN and row.uid == os.geteuid() for row in _rows())


def _rows() -> Iterator[_Row]:
    with _SOCKETS.open(encoding="ascii") as lines:
        next(lines)
        for line in lines:
            words = line.split()
            yield _Row(words[1], words[2], words[3], int(words[7]))


def _hex(address: tuple[str, int]) -> str:
    host, port = address
    return f"{int.from_bytes(socket.inet_aton(host), sys.byteorder):08X}:{port:04X}"
