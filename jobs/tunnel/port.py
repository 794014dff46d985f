"""The local port of a tunnel: the same one each time, so that clients need no new URL."""

import os
import socket
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Annotated
from urllib.parse import quote

import msgspec
import psutil

from ...core import files
from ...core.errors import TunnelError
from ...core.net.sockets import listening_socket
from ...core.paths import home, make_home

ADDRESS = "127.0.0.1"
_VERSION = 1
# Below the ports that the kernel hands out by itself (32768 and above), and not a router's usual 30000.
_FIRST, _COUNT = 20_000, 10_000
_MOST_TRIED = 50


class PortRecord(msgspec.Struct, kw_only=True):
    """`tunnels/NAME` or `tunnels/NAME@LOGIN` in slurminfer's home."""

    version: int = _VERSION
    port: Annotated[int, msgspec.Meta(ge=1, le=65535)]


def open_port(name: str, login: str | None, given: int | None) -> socket.socket:
    """A listening socket at the tunnel's port: the given one, else the one that it had before, else a new one.

    Raises TunnelError where another program has the port, RunDirectoryError where the new one cannot be noted.
    """
    if given is not None:
        return _listen(given, f"--port {given}: it is taken{{by}}; end that program, or give another port")
    kept = kept_port(name, login)
    if kept is not None:
        what = f"port {kept}, which the tunnel to '{name}' has had before, is taken{{by}}"
        return _listen(kept, what + "; end that program, or give another port with --port")
    listener = _first_free(name, login)
    files.make_directory(_path(name, login).parent)
    files.write_atomic(_path(name, login), files.encode_json(PortRecord(port=listener.getsockname()[1])))
    return listener


def kept_port(name: str, login: str | None) -> int | None:
    """The port that the tunnel has had before. Raises RunDirectoryError for a damaged record."""
    text = files.read_private(_path(name, login))
    if text is None:
        return None
    return files.parse_versioned(_path(name, login), text, PortRecord, _VERSION, what="tunnel's port").port


def likely_port(name: str, login: str | None) -> int:
    """The port that the tunnel has had before, or would try first. It depends on the user, whom others may imitate."""
    return kept_port(name, login) or _FIRST + zlib.crc32(f"{os.getuid()} {name} {login or ''}".encode()) % _COUNT


def _first_free(name: str, login: str | None) -> socket.socket:
    make_home()
    first = likely_port(name, login)
    for step in range(_MOST_TRIED):
        with suppress(OSError):
            return listening_socket(ADDRESS, _FIRST + (first - _FIRST + step) % _COUNT)
    raise TunnelError(f"{_MOST_TRIED} ports from {first} on are taken on {ADDRESS}: choose one with --port")


def _listen(port: int, taken: str) -> socket.socket:
    try:
        return listening_socket(ADDRESS, port)
    except PermissionError as error:
        raise TunnelError(f"--port {port}: {error.strerror}; expected one of 1024 to 65535") from error
    except OSError as error:
        raise TunnelError(taken.format(by=_by(port))) from error


def _by(port: int) -> str:
    """Which program of this user has the port, in words; empty if it is another user's, or cannot be told."""
    with suppress(psutil.Error, OSError):
        for connection in psutil.net_connections("tcp4"):
            is_listening = connection.status == psutil.CONN_LISTEN and connection.pid is not None
            if is_listening and connection.laddr and connection.laddr.port == port:
                return f" by pid {connection.pid} ({psutil.Process(connection.pid).name()})"
    return ""


def _path(name: str, login: str | None) -> Path:
    file = name if login is None else f"{name}@{login}"
    return home() / "tunnels" / quote(file, safe="@")
