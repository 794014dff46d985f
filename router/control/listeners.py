"""Listening sockets of one port for several relays: the kernel spreads new connections among them (SO_REUSEPORT).

With SO_REUSEPORT alone, a second router of the same user would silently share the port. So the first socket binds and
listens without it, which no two sockets can, and allows sharing only then.
"""

import asyncio
import errno
import socket
from collections.abc import Awaitable, Callable

from ...core.errors import RouterError
from ...core.net.sockets import BACKLOG, hold_port, listening_socket

# The relays of a router that was killed close their listeners as soon as they notice.
_ATTEMPTS = 20
_AGAIN_S = 0.1


class PortTakenError(RouterError):
    """Another program listens on the port."""


async def open_listeners(
    address: str, port: int, count: int, *, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
) -> list[socket.socket]:
    """`count` sockets that listen on the same port of `address`; 0 takes any free one.

    Raises RouterError where the port stays taken for 2 s, or where there is another reason.
    """
    listeners = [await _first(listening_socket, address, port, sleep)]
    try:
        listeners[0].setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        for _ in range(count - 1):
            listeners.append(_another(listeners[0]))
        for listener in listeners:
            listener.setblocking(False)  # in all processes that have it, and whoever makes a copy leaves it so
    except OSError as error:
        for listener in listeners:
            listener.close()
        raise RouterError(f"cannot listen on {address}:{port}: {error.strerror}") from error
    return listeners


async def require_free(address: str, port: int) -> None:
    """Raise RouterError where a router could not listen on `port` of `address`."""
    for listener in await open_listeners(address, port, 1):
        listener.close()


async def hold(address: str, port: int, *, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep) -> socket.socket:
    """A socket that keeps `port` of `address` (0: any free one) for a child process, and never listens itself.

    Raises RouterError where somebody listens there for 2 s, or where there is another reason.
    """
    return await _first(hold_port, address, port, sleep)


async def _first(
    make: Callable[[str, int], socket.socket],
    address: str,
    port: int,
    sleep: Callable[[float], Awaitable[None]],
) -> socket.socket:
    for attempt in range(_ATTEMPTS):
        try:
            return make(address, port)
        except OSError as error:
            if error.errno != errno.EADDRINUSE or attempt == _ATTEMPTS - 1:
                advice = "choose another router.port in the spec (0 takes any free one)"
                kind = PortTakenError if error.errno == errno.EADDRINUSE else RouterError
                raise kind(f"cannot listen on {address}:{port}: {error.strerror}; {advice}") from error
        await sleep(_AGAIN_S)
    raise AssertionError("unreachable")


def _another(first: socket.socket) -> socket.socket:
    listener = socket.socket(first.family, first.type, first.proto)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind(first.getsockname())
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener
