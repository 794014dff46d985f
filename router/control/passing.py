"""Passing the endpoint's listening sockets to another router on the same node, so that its address stays the same.

The sockets go through a Unix socket (SCM_RIGHTS), as web servers do it when they replace themselves. Both routers then
have the same sockets: a client that connects waits in the one queue, from which either may accept. So when the first
one stops accepting, no connection is lost, which SO_REUSEPORT, where each socket has a queue of its own, cannot do.

The Unix socket has an abstract name, since two jobs of a node may have different /tmp. Such names belong to a network
namespace, as ports do. Everybody may connect, so both ends check that the other one is of the same user. A stranger who
fills the queue of the socket can make a successor wait, which goes in turn, but not keep it out.
"""

import asyncio
import logging
import os
import secrets
import socket
import struct
from collections.abc import Sequence
from contextlib import suppress

from ...core.background.threads import in_thread
from ...core.net.sockets import peer_uid

_TIMEOUT_S = 5.0
_STRANGER_PAUSE_S = 0.001  # so that strangers cannot keep the supervisor busy
_MOST = 250  # file descriptors in one message: the kernel takes 253
_WORD = b"listeners"

_log = logging.getLogger(__name__)


class Offer:
    """Gives a router's listening sockets to whoever of this user asks at `name`, as long as it is open."""

    def __init__(self, listeners: Sequence[socket.socket]) -> None:
        self.name = f"slurminfer-{secrets.token_hex(16)}" if 0 < len(listeners) <= _MOST else ""
        self._listeners = listeners
        self._asked = socket.socket(socket.AF_UNIX)
        if self.name:
            self._asked.setblocking(False)
            self._asked.bind(_address(self.name))
            self._asked.listen()

    def close(self) -> None:
        """Give them to nobody any more."""
        self._asked.close()

    async def run(self) -> None:
        """Answer until cancelled."""
        loop = asyncio.get_running_loop()
        while self.name:
            asking, _ = await loop.sock_accept(self._asked)
            with asking, suppress(OSError):
                if peer_uid(asking) == os.geteuid():
                    socket.send_fds(asking, [_WORD], [listener.fileno() for listener in self._listeners])
                    continue
            await asyncio.sleep(_STRANGER_PAUSE_S)


async def take(name: str, address: str, count: int) -> list[socket.socket]:
    """The listening sockets of the router that offers them at `name`; none unless there are `count` on `address`."""
    try:
        taken = await in_thread(lambda: _take(name))
    except OSError as error:
        _log.info("the predecessor's listening sockets cannot be had: %s", error)
        return []
    if len(taken) == count and all(sock.getsockname()[0] == address for sock in taken):
        return taken
    for sock in taken:
        sock.close()
    return []


def _take(name: str) -> list[socket.socket]:
    with socket.socket(socket.AF_UNIX) as asking:
        # A socket that does not block, as one with a timeout of Python's, would not wait while the queue is full.
        asking.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", int(_TIMEOUT_S), 0))
        asking.connect(_address(name))
        asking.settimeout(_TIMEOUT_S)
        if peer_uid(asking) != os.geteuid():
            raise PermissionError("another user has that name")
        word, numbers, _, _ = socket.recv_fds(asking, len(_WORD), _MOST)
    taken = [socket.socket(fileno=number) for number in numbers]
    for sock in taken:
        sock.set_inheritable(False)
        sock.setblocking(False)  # a copy is as its original, and would else make it wait for clients, at both routers
    return taken if word == _WORD else []


def _address(name: str) -> bytes:
    return b"\0" + name.encode()
