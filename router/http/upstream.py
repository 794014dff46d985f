"""One connection to a worker: a request goes out, its answer is parsed by llhttp and given to whoever sent it."""

import asyncio
from typing import Protocol, cast

import httptools

from .messages import AnswerLostError, Headers, NoAnswerError, Sink

_MOST_HEAD = 64 * 1024  # bytes
_FRAMING_EACH = 16  # bytes of a body's framing for one of its content; chunks of one byte have 5
_LARGE = 64 * 1024  # bytes of a body that is not copied to stand beside its head


class Exchange:
    """One request at one worker, over one connection, or a second one if the first turned out to be closed already.

    Implements `messages.Flow`.
    """

    __slots__ = ("_body", "_head", "connection", "over", "paused", "sink")

    def __init__(self, head: bytes, body: bytes, sink: Sink) -> None:
        self._head, self._body, self.sink = head, body, sink
        self.connection: Upstream | None = None
        self.paused = self.over = False

    def pause(self) -> None:
        """Read no more from the worker for now."""
        if not self.paused and not self.over:
            self.paused = True
            if self.connection is not None:
                self.connection.pause()

    def resume(self) -> None:
        """Read again."""
        if self.paused:
            self.paused = False
            if self.connection is not None:
                self.connection.resume()

    def abort(self) -> None:
        """Close the connection at once, so that the engine stops computing. The sink hears nothing more."""
        if not self.over:
            self.over = True
            if self.connection is not None:
                self.connection.cut()

    def send_on(self, connection: "Upstream") -> None:
        """Send the request on a connection."""
        self.connection = connection
        connection.begin(self, self._head[:5] == b"HEAD ")
        if len(self._body) > _LARGE:
            connection.transport.writelines([self._head, b"\r\n", self._body])
        else:
            connection.transport.write(b"%b\r\n%b" % (self._head, self._body))
        if self.paused:
            connection.pause()

    def lose(self, error: Exception) -> None:
        """Tell the sink that the answer broke off."""
        if not self.over:
            self.over = True
            self.sink.on_lost(error)


class Keeper(Protocol):
    """Who keeps the connections to a worker."""

    def release(self, connection: "Upstream") -> None:
        """Keep a connection whose answer is complete for the next request."""

    def forget(self, connection: "Upstream") -> None:
        """Note that a connection is closed."""

    def send_again(self, exchange: Exchange) -> None:
        """Send a request on a new connection, as the old one was closed before the request came."""


class _Stop(Exception):
    """Ends the parsing: nothing that follows makes sense."""


class Upstream(asyncio.Protocol):
    """A connection to a worker, and the target of httptools' parser. Idle while it has no exchange."""

    __slots__ = (
        "__weakref__", "_body_bytes", "_complete", "_content", "_exchange", "_fault", "_head_method", "_headers",
        "_in_body", "_keep", "_parser", "_paused", "_pool", "_received", "idle_since", "lost", "on_body", "reused",
        "transport",
    )  # fmt: skip

    transport: asyncio.Transport

    def __init__(self, pool: Keeper) -> None:
        self._pool = pool
        self._content: list[bytes] = []  # of the body, from one reading
        self.on_body = self._content.append  # called by the parser
        self._exchange: Exchange | None = None
        self._paused = False
        self.reused = False  # the exchange is not the first one
        self.lost = False
        self._fault = ""
        self.idle_since = 0.0
        self._headers: Headers = []

    def begin(self, exchange: Exchange, head_method: bool) -> None:
        """Take the answer for `exchange` from now on."""
        self._exchange, self._head_method = exchange, head_method
        self._received = self._body_bytes = 0
        self._in_body = self._complete = self._keep = False

    def pause(self) -> None:
        """Read no more for now."""
        if not self._paused and not self.transport.is_closing():
            self._paused = True
            self.transport.pause_reading()

    def resume(self) -> None:
        """Read again."""
        if self._paused and not self.transport.is_closing():
            self.transport.resume_reading()
        self._paused = False

    def cut(self) -> None:
        """Close the connection at once; closing TLS would wait for the peer."""
        self._exchange = None
        self.transport.abort()

    # Called by the event loop.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection is there."""
        self.transport = cast(asyncio.Transport, transport)
        self._parser = httptools.HttpResponseParser(self)

    def data_received(self, data: bytes) -> None:
        """Parse some of the answer."""
        if self._exchange is None:
            self.transport.abort()  # nobody has asked for anything
            return
        self._received += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._fault = "it answers with another protocol"
        except httptools.HttpParserError as error:
            self._fault = self._fault or f"its answer is no HTTP: {error}"
        content = self._content
        if content:
            piece = content[0] if len(content) == 1 else b"".join(content)
            content.clear()
            self._body_bytes += len(piece)
            if self._exchange is not None:
                self._exchange.sink.on_data(piece)
        if self._complete:
            self._finish()
        elif self._fault or self._received - self._body_bytes > _MOST_HEAD + _FRAMING_EACH * self._body_bytes:
            self._break(self._fault or "its answer's head is too long")

    def eof_received(self) -> bool:
        """The worker has closed its side; that ends a body without a length (RFC 9112, 6.3)."""
        exchange = self._exchange
        ends = exchange is not None and self._in_body and not _tells_its_end(self._headers)
        if ends and not self._paused:  # over TLS, what a paused reader has not read is lost
            self._complete = True
            self._keep = False
            self._finish()
        return False

    def connection_lost(self, error: Exception | None) -> None:
        """The connection is gone."""
        self.lost = True
        del self._parser  # the two hold each other until garbage is collected
        self._pool.forget(self)
        exchange, self._exchange = self._exchange, None
        if exchange is None or exchange.over:
            return
        if self.reused and not self._received:
            self._pool.send_again(exchange)
        else:
            reason = f": {error}" if error is not None and str(error) else ""
            exchange.lose(AnswerLostError(f"its connection ended before its answer was complete{reason}"))

    # Called by the parser.

    def on_message_begin(self) -> None:
        """An answer begins."""
        if self._complete:
            self._keep = False  # it says more than it was asked for
            raise _Stop
        self._headers = []

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header; trailers are left out."""
        if not self._in_body:
            self._headers.append((name.lower(), value.rstrip(b" \t")))

    def on_headers_complete(self) -> None:
        """Give the head on."""
        status = self._parser.get_status_code()
        if self._received > _MOST_HEAD and sum(len(n) + len(v) for n, v in self._headers) > _MOST_HEAD:
            self._fault = "its answer's head is too long"
            raise _Stop
        if status < 200:
            return
        self._in_body = True
        exchange = self._exchange
        if exchange is not None:
            exchange.sink.on_head(status, self._headers)
        if self._head_method:
            self._complete = True
            raise _Stop

    def on_message_complete(self) -> None:
        """The answer is complete, unless it was a provisional one."""
        if self._in_body:
            self._complete = True
            self._keep = self._parser.should_keep_alive()

    def _finish(self) -> None:
        """The answer is complete: somebody else may use the connection."""
        exchange, self._exchange = self._exchange, None
        if exchange is None:  # it was aborted meanwhile
            return
        if self._paused:
            self.resume()
        if self._keep and not self.transport.get_write_buffer_size():
            self._pool.release(self)
        else:
            self.transport.abort()
        if not exchange.over:
            exchange.over = True
            exchange.sink.on_end()

    def _break(self, reason: str) -> None:
        exchange, self._exchange = self._exchange, None
        self.transport.abort()
        if exchange is not None:
            exchange.lose(NoAnswerError(reason))


def _tells_its_end(headers: Headers) -> bool:
    """Whether the body of an answer with these headers has a length or chunks."""
    fields = dict(headers)
    return b"content-length" in fields or fields.get(b"transfer-encoding", b"").lower().endswith(b"chunked")
