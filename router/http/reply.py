"""The answer to one request, on the connection that the request came by."""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from .bodies import Held
from .heads import BODILESS, answer_head
from .messages import Head, Headers, Whole
from .refusals import refusal
from .state import ServerState

_log = logging.getLogger(__name__)
_LARGE = 64 * 1024  # bytes, from which on data is not copied to stand beside its framing


class Line(Protocol):
    """The connection that an answer goes by."""

    server: ServerState
    transport: asyncio.Transport
    writable: bool  # whether the client reads

    def answered(self, reply: "ClientReply") -> None:
        """The answer has been written."""

    def cut(self) -> None:
        """Close the connection at once."""


class ClientReply:
    """Implements `messages.Reply`."""

    __slots__ = (
        "_chunked", "_connection", "_head", "_left", "_mute", "_old", "_request", "began", "encoding", "held", "keep",
        "on_lost", "on_writable", "over",
    )  # fmt: skip

    def __init__(self, connection: Line, request: Head | None, *, keep: bool = False, old: bool = False) -> None:
        """`old`: the client knows HTTP/1.0 only. `keep`: it wants to use the connection again."""
        self._connection, self._request, self.keep, self._old = connection, request, keep, old
        self.began = self.over = False
        self.on_writable: Callable[[], None] | None = None
        self.on_lost: Callable[[], object] | None = None
        self.held: Held | None = None  # the request's body, until this is over
        self.encoding = "identity"  # of that body
        self._head = b""  # what leaves with the first bytes
        self._chunked = self._mute = False
        self._left: int | None = None  # bytes of a body of known length

    def whole(self, answer: Whole) -> None:
        """Send an answer in one piece."""
        if self.over:
            return
        if answer.close:
            self.keep = False
        if answer.status >= 400 and self._request is not None and self._request.reshape is not None:
            answer = self._request.reshape(answer)
        self.begin(answer.status, answer.headers, len(answer.body))
        self.began = True
        self._connection.transport.write(self._head if self._mute else self._head + answer.body)
        self._finish()

    def begin(self, status: int, headers: Headers, length: int | None = None) -> None:
        """Begin an answer of `length` bytes, or of unknown length. Raises ValueError for a header with a line break."""
        if self.over:
            return
        assert not self.began, "the client has got a head already"
        request, server = self._request, self._connection.server
        bodiless = status in BODILESS
        self._mute = bodiless or (request is not None and request.method == b"HEAD")
        self._left, self._chunked = length, length is None and not self._old and not self._mute
        if server.closing or (length is None and self._old and not self._mute):
            self.keep = False
        extra = server.date_line
        if request is not None:
            extra = b"%b%bX-Request-Id: %b\r\n" % (extra, request.answer_lines, request.id.encode())
            if request.answer_headers:
                headers = headers + request.answer_headers
        if self._chunked:
            extra += b"Transfer-Encoding: chunked\r\n"
        elif length is not None and not bodiless:
            extra += b"Content-Length: %d\r\n" % length
        if not self.keep:
            extra += b"Connection: close\r\n"
        elif self._old:
            extra += b"Connection: keep-alive\r\n"
        self._head = answer_head(status, headers, extra)

    def write(self, data: bytes) -> bool:
        """Send some of the body. False: the client is behind, pause the source until `on_writable`."""
        connection = self._connection
        if self.over or self._mute or not data:
            return connection.writable
        if self._chunked:
            if len(data) > _LARGE:
                self._send([self._head, b"%x\r\n" % len(data), data, b"\r\n"])
                return connection.writable
            data = b"%b%x\r\n%b\r\n" % (self._head, len(data), data)
        else:
            if self._left is not None:
                self._left -= len(data)
                if self._left < 0:
                    _log.error("an answer is longer than its Content-Length says")
                    self.abort()
                    return False
            if self._head:
                data = self._head + data
        self._head = b""
        self.began = True
        connection.transport.write(data)
        return connection.writable

    def end(self) -> None:
        """The body is complete."""
        if self.over:
            return
        if self._left and not self._mute:
            self.abort()
            return
        last = self._head + b"0\r\n\r\n" if self._chunked else self._head
        if last:
            self._head = b""
            self.began = True
            self._connection.transport.write(last)
        self._finish()

    def abort(self) -> None:
        """Break the connection: the only way left to say that this is not the whole."""
        if not self.over:
            self._end()
            self._connection.cut()

    def hold(self, count: int) -> None:
        """Count more bytes as held for the request, as its body is, until the answer's end. Raises BodyError."""
        if self.held is not None:
            self.held.take(count)

    def run(self, answering: Coroutine[Any, Any, None], ended: Callable[[], None] | None = None) -> None:
        """Let a coroutine answer, which is cancelled when the client hangs up."""

        def finish(_: asyncio.Task[None]) -> None:
            answering.close()  # one that was cancelled before it began
            if ended is not None:
                ended()

        task = self._connection.server.loop.create_task(self._answer(answering))
        task.add_done_callback(finish)
        self.on_lost = task.cancel

    async def _answer(self, answering: Coroutine[Any, Any, None]) -> None:
        try:
            await answering
        except asyncio.CancelledError:
            self.abort()
            raise
        except Exception:
            self.log_failure()
        if not self.over:
            self.fail()

    def log_failure(self) -> None:
        """Log the exception that is being handled."""
        request = self._request
        what = ("-", "") if request is None else (request.method.decode(), request.path)
        _log.exception("%s %.200r failed", *what)

    def lose(self) -> None:
        """The client is gone."""
        if not self.over:
            on_lost = self.on_lost
            self._end()  # which forgets `on_lost`: a cancelled task keeps what its coroutine had, this too
            if on_lost is not None:
                on_lost()

    def fail(self) -> None:
        """Nobody has answered, or not to the end."""
        if self.began:
            self.abort()
        else:
            self.whole(refusal(500, "internal error", close=True))

    def _send(self, pieces: list[bytes]) -> None:
        self._head = b""
        self.began = True
        self._connection.transport.writelines(pieces)

    def _finish(self) -> None:
        self._end()
        self._connection.answered(self)

    def _end(self) -> None:
        self.over = True
        self.on_writable = self.on_lost = None
        if self.held is not None:
            self.held.release()
