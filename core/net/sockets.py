"""Sockets: how many there may be, listeners, held ports, Unix sockets of this user, and noticing dead peers."""

import os
import resource
import socket
import stat
import struct
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from ..trust import OTHERS_RIGHTS

if TYPE_CHECKING:  # importing aiohttp takes longer than most commands
    from aiohttp.connector import AddrInfoType

BACKLOG = 1024  # connections that wait to be accepted
LONGEST_SOCKET_PATH = 107  # bytes; what the kernel's sun_path takes
_SILENCE_S = 30  # between the last sign of a peer and its being given up
_CREDENTIALS = struct.Struct("3i")  # struct ucred: pid, uid, gid


def watchful_socket(address: "AddrInfoType") -> socket.socket:
    """A client's socket that fails within 30 s of its peer's power failure; otherwise a wait would last for ever."""
    family, kind, protocol, *_ = address
    sock = socket.socket(family, kind, protocol)
    watch_peer(sock)
    return sock


def watch_peer(sock: socket.socket) -> None:
    """Make a TCP socket fail within 30 s of its peer's power failure, and send small pieces at once."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _SILENCE_S // 2)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, _SILENCE_S // 6)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
    # Keepalive is silent while sent data is not acknowledged; this is not.
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _SILENCE_S * 1000)


def own_socket_fault(path: Path) -> str | None:
    """Why the Unix socket at `path` may be somebody else's, or is not there; None if only this user can have made it.

    It and its folder must be this user's, and nobody else may enter the folder.
    """
    try:
        folder, found = path.parent.lstat(), path.lstat()
    except OSError as error:
        return f"{error.filename}: {error.strerror}"
    except ValueError as error:  # no path can have a NUL
        return f"{str(path)!r}: {error}"
    if not stat.S_ISSOCK(found.st_mode):
        return f"{path} is no socket"
    if {folder.st_uid, found.st_uid} != {os.geteuid()}:
        return f"{path} or its folder is another user's"
    if not stat.S_ISDIR(folder.st_mode) or folder.st_mode & OTHERS_RIGHTS:
        return f"{path.parent} is open to others (mode {stat.S_IMODE(folder.st_mode):04o}): expected 0700"
    return None


def peer_uid(sock: socket.socket) -> int:
    """The user id of the process that listens at, or has connected to, the other end of a Unix socket."""
    found = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    return int(_CREDENTIALS.unpack(found)[1])


def allow_many_sockets() -> None:
    """Raise the soft limit of open files to the hard one: many clusters allow 1,024 unless asked for more."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def listening_socket(host: str, port: int = 0) -> socket.socket:
    """A TCP socket that listens already, by default at a free port. Raises OSError, OverflowError for no port."""
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
    except (OSError, OverflowError):
        listener.close()
        raise
    return listener


def hold_port(address: str, port: int = 0) -> socket.socket:
    """A socket that is bound to `port` of `address`, and never listens; 0: any free one, `getsockname()[1]`.

    While it is open, the kernel gives the port to no one else who asks for any, such as the other jobs of the node. An
    engine that asks for just this one gets it, if it sets SO_REUSEADDR as servers do. So does anybody else who asks for
    it: whoever listens first has it, and the caller tries another. Raises OSError.
    """
    held = socket.socket()
    try:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind((address, port))
    except OSError:
        held.close()
        raise
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
