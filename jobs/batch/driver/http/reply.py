"""A whole answer to one request, and its being received."""

import asyncio
import time
from typing import Any

import msgspec

from .....core.net.openai import REQUEST_ID_HEADER
from .....router.http.messages import AnswerLostError, Flow, Headers
from ..retry import parse_retry_after

# A body beyond this is no answer to a row of a batch, and many of them are in memory at once.
LONGEST_ANSWER = 64 * 1024 * 1024
MOST_HELD = 1024 * 1024 * 1024  # bytes of all answers together that are being received
_MESSAGE_LIMIT = 2000
_BYTES_LIMIT = 4 * _MESSAGE_LIMIT
_REQUEST_ID = REQUEST_ID_HEADER.lower().encode()


class UnreachableError(Exception):
    """No whole answer came. `broken_off`: the request had been sent, and its connection ended before the answer did."""

    def __init__(self, why: str, *, broken_off: bool = False) -> None:
        self.broken_off = broken_off
        super().__init__(why)


class AnswerTooLongError(Exception):
    """An answer has more than LONGEST_ANSWER bytes."""


class _Error(msgspec.Struct):
    message: str
    code: Any = None


class _ErrorBody(msgspec.Struct):
    error: _Error


class Reply:
    """A whole answer."""

    __slots__ = ("_headers", "body", "status")

    def __init__(self, status: int, headers: Headers, body: bytes) -> None:
        self.status, self._headers, self.body = status, headers, body

    @property
    def request_id(self) -> str | None:
        """The id that the endpoint has given the request."""
        found = self._header(_REQUEST_ID)
        return None if found is None else found.decode(errors="replace")

    @property
    def retry_after_s(self) -> float:
        """Seconds that the endpoint asks to wait; 0 where it does not say."""
        found = self._header(b"retry-after")
        return 0.0 if found is None else parse_retry_after(found.decode(errors="replace"), time.time())

    @property
    def message(self) -> str:
        """What an error answer says: OpenAI's message where it has that shape, else its text."""
        said = self._error()
        text = said.message if said else self.body[:_BYTES_LIMIT].decode(errors="replace").strip()
        return text[:_MESSAGE_LIMIT]

    @property
    def code(self) -> str | None:
        """The code of an error answer in OpenAI's shape, if it has one."""
        said = self._error()
        return said.code if said and isinstance(said.code, str) else None

    def _header(self, name: bytes) -> bytes | None:
        return next((value for key, value in self._headers if key == name), None)

    def _error(self) -> _Error | None:
        try:
            return msgspec.json.decode(self.body, type=_ErrorBody).error
        except (msgspec.MsgspecError, ValueError, RecursionError):
            return None


class Held:
    """How many bytes the answers have that are being received from one endpoint."""

    def __init__(self) -> None:
        self.bytes = 0


class Receiver:
    """Takes one answer. Implements the router's `messages.Sink`.

    Where answers together get too large for the memory, those that grow then are given up, to be asked for again.
    """

    __slots__ = ("_headers", "_held", "_parts", "_size", "_status", "done", "flow")

    def __init__(self, loop: asyncio.AbstractEventLoop, held: Held) -> None:
        self.done: asyncio.Future[Reply] = loop.create_future()
        self._held = held
        self.flow: Flow | None = None
        self._parts: list[bytes] = []
        self._size = 0

    def on_head(self, status: int, headers: Headers) -> None:
        """The head is complete."""
        self._status, self._headers = status, headers

    def on_data(self, data: bytes) -> None:
        """Some of the body."""
        self._parts.append(data)
        self._size += len(data)
        self._held.bytes += len(data)
        if self._size > LONGEST_ANSWER:
            self._give_up(AnswerTooLongError(f"the answer is longer than {LONGEST_ANSWER // 1024**2} MiB"))
        elif self._held.bytes > MOST_HELD:
            self._give_up(UnreachableError(f"answers of more than {MOST_HELD // 1024**2} MiB came at once"))

    def on_end(self) -> None:
        """The body is complete."""
        parts = self._parts
        self.let_go()
        if not self.done.done():
            body = parts[0] if len(parts) == 1 else b"".join(parts)
            self.done.set_result(Reply(self._status, self._headers, body))

    def on_lost(self, error: Exception) -> None:
        """The answer broke off, or is no HTTP."""
        self.let_go()
        if not self.done.done():
            broken_off = isinstance(error, AnswerLostError)
            self.done.set_exception(UnreachableError(str(error) or type(error).__name__, broken_off=broken_off))

    def let_go(self) -> None:
        """Forget what has come of the answer, if it is not complete."""
        self._held.bytes -= self._size
        self._parts, self._size = [], 0

    def _give_up(self, error: Exception) -> None:
        self.let_go()
        if self.flow is not None:
            self.flow.abort()
        if not self.done.done():
            self.done.set_exception(error)
