"""Which user's process is at the other end of a TCP connection on this machine, as Linux tells it (sock_diag(7))."""

import os
import socket
import struct
from typing import Protocol

_NETLINK_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY = 20
_REQUEST = 1  # NLM_F_REQUEST
_ALL_STATES = 0xFFFFFFFF
_HEADER = struct.Struct("=IHHII")  # nlmsghdr: length, type, flags, sequence, sender
_QUESTION = struct.Struct("=BBBBI")  # inet_diag_req_v2: family, protocol, extensions, padding, states
_PORTS = struct.Struct("!HH")  # inet_diag_sockid begins with these, and goes on with 16 bytes for each address
_REST = struct.Struct("=III")  # interface, and a cookie that fits any socket
_NO_COOKIE = 0xFFFFFFFF
_ANSWER_S = 1.0
_UID_AT = 4 + 48 + 12  # in inet_diag_msg: behind four bytes, the sockid, and expires, rqueue, wqueue


class Named(Protocol):
    """What tells of a connection's two ends: a socket, or that of a transport."""

    def getsockname(self) -> tuple[str, int]:
        """This end."""

    def getpeername(self) -> tuple[str, int]:
        """The other one."""


class PeerUsers:
    """Asks the kernel who is at the other end of IPv4 connections. Where it cannot be asked, nobody is known."""

    def __init__(self) -> None:
        self._netlink: socket.socket | None = None
        try:
            self._netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, _NETLINK_SOCK_DIAG)
            self._netlink.settimeout(_ANSWER_S)
        except (OSError, AttributeError):  # forbidden here, or no Linux
            self.close()

    def close(self) -> None:
        """Ask no more."""
        if self._netlink is not None:
            self._netlink.close()
            self._netlink = None

    def uid(self, connection: Named) -> int | None:
        """The user id of the process at the other end; None if it is not on this machine, or cannot be told."""
        if self._netlink is None:
            return None
        try:
            here, there = connection.getsockname(), connection.getpeername()
            self._netlink.send(_question(there, here))
            answer = self._netlink.recv(4096)
        except OSError:
            return None
        return _uid_in(answer)

    def is_strangers(self, connection: Named) -> bool:
        """Whether the process at the other end is known to be neither this user's nor root's."""
        return self.uid(connection) not in (None, 0, os.geteuid())


def _question(source: tuple[str, int], destination: tuple[str, int]) -> bytes:
    """The request for the socket that is bound to `source` and connected to `destination`."""
    body = _QUESTION.pack(socket.AF_INET, socket.IPPROTO_TCP, 0, 0, _ALL_STATES)
    body += _PORTS.pack(source[1], destination[1])
    body += b"".join(socket.inet_aton(host).ljust(16, b"\0") for host, _ in (source, destination))
    body += _REST.pack(0, _NO_COOKIE, _NO_COOKIE)
    return _HEADER.pack(_HEADER.size + len(body), _SOCK_DIAG_BY_FAMILY, _REQUEST, 0, 0) + body


def _uid_in(answer: bytes) -> int | None:
    if len(answer) < _HEADER.size + _UID_AT + 4:
        return None
    kind = _HEADER.unpack_from(answer)[1]
    if kind != _SOCK_DIAG_BY_FAMILY:
        return None
    return int(struct.unpack_from("=I", answer, _HEADER.size + _UID_AT)[0])
