"""The body of a request that is read as it comes, instead of being held as a whole."""

import asyncio
from collections import deque
from collections.abc import Callable

from ...core.net.compression import BodyError
from .messages import BodyLostError

_HIGH = 256 * 1024  # bytes that nobody has read, from which on no more is taken


class BodyStream:
    """Implements `messages.Body`.

    Args:
        most: bytes that it may have.
        hold: called with True when the client is to wait, with False when it may go on.
    """

    def __init__(self, most: int, hold: Callable[[bool], None]) -> None:
        self._most, self._hold = most, hold
        self._parts: deque[bytes] = deque()
        self._unread = 0
        self._ended = self._lost = False
        self._waiter: asyncio.Future[None] | None = None
        self.size = 0  # bytes received

    def add(self, data: bytes) -> None:
        """Take some of the body. Raises BodyError where it is too large."""
        self.size += len(data)
        require_length(self.size, self._most)
        self._parts.append(data)
        self._unread += len(data)
        if self._unread > _HIGH:
            self._hold(True)
        self._wake()

    def end(self) -> None:
        """The body is complete."""
        self._ended = True
        self._wake()

    def lose(self) -> None:
        """The rest does not come, or nobody wants it."""
        self._lost = True
        self._parts.clear()
        self._hold(False)
        self._wake()

    async def read(self) -> bytes:
        """Some more of it; empty at the end. Raises BodyLostError where the end does not come."""
        while not self._parts:
            if self._lost:
                raise BodyLostError
            if self._ended:
                return b""
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        data = b"".join(self._parts)
        self._parts.clear()
        self._unread = 0
        self._hold(False)
        return data

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)


def require_length(size: int, most: int) -> None:
    """Raise BodyError where a body of `size` bytes is too large."""
    if size > most:
        raise BodyError(413, f"the body has {size} bytes or more: expected at most {most}")
