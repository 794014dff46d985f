"""A client's connection: requests parsed by llhttp, answered one after the other."""

import asyncio
import logging
from collections import deque
from contextlib import suppress
from typing import cast

import httptools

from ...core.net.compression import BodyError, decompressed, encoding_named
from ...core.net.openai import request_id
from .bodies import Held
from .body_stream import BodyStream, require_length
from .heads import has_content, read_request_line
from .messages import Head, Headers, Request, Streamed, Whole
from .refusals import refusal
from .reply import ClientReply
from .state import ServerState

_MOST_UNSENT = 64 * 1024  # bytes that a client has not read, from which on its answer's source is paused
# Requests behind the one that is being answered: the first number stops reading. Those that have come in one piece with
# it may be more, up to the second number; then the connection ends after these.
_PIPELINED, _MOST_PIPELINED = 8, 128
_FRAMING_EACH = 16  # bytes of a body's framing for one of its content; chunks of one byte have 5
_HTTP2 = "HTTP/2 is not spoken here: expected HTTP/1.1"
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

_log = logging.getLogger(__name__)


class _Stop(Exception):
    """Ends the parsing of what has come: nothing that follows on this connection is read."""


class Connection(asyncio.Protocol):
    """One connection of a client. A `Guarded`, and the target of httptools' parser."""

    __slots__ = (
        "__weakref__", "_current", "_head", "_headers", "_in_head", "_limits", "_lost", "_parser", "_paused", "_piece",
        "_pumping", "_queue", "_reading", "_received", "_reply", "_stopped", "_stream", "_target", "_unsent",
        "_upgrading", "_waits_for_continue", "busy", "discarded", "guard", "server", "since", "source", "transport",
        "trusted", "writable",
    )  # fmt: skip

    transport: asyncio.Transport

    def __init__(self, server: ServerState, *, private: bool = False) -> None:
        """`private`: whoever connects has proven to be one of our own programs."""
        self.server = server
        self.guard = None if private else server.guard
        self._limits = server.limits
        self.source, self.since, self.discarded = "", 0, 0
        self.trusted = self.busy = False
        self.writable = True
        self._unsent = 0  # bytes that the client had not read when that was looked at last
        self._lost = self._paused = self._pumping = False
        self._stopped = False  # what comes is not parsed any more
        self._reading = False  # a body has not come in one piece with its head
        self._current: ClientReply | None = None  # being answered
        self._queue: deque[tuple[Head | Whole, ClientReply]] = deque()  # complete requests behind it
        self._head: Head | None = None  # of the request whose body is being received
        self._reply: ClientReply | None = None  # for it
        self._stream: BodyStream | None = None  # that body, if it is given on as it comes; `_reply` is `_current` then
        self._upgrading = self._waits_for_continue = False
        self._piece = 0  # bytes of what came last
        # Of the request that is being received.
        self._in_head = False
        self._target, self._headers = b"", cast(Headers, [])
        self._received = 0  # bytes that came after the piece in which it began

    # Called by the event loop.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the connection in."""
        self.transport = cast(asyncio.Transport, transport)
        self._parser = httptools.HttpRequestParser(self)
        self.transport.set_write_buffer_limits(high=_MOST_UNSENT)
        peer = transport.get_extra_info("peername")
        self.source = peer[0] if isinstance(peer, tuple) else ""
        self.server.opened(self)
        if self.guard is not None:
            self.guard.opened(self)

    def connection_lost(self, error: Exception | None) -> None:
        """End what is being answered, and forget the rest."""
        self._lost = True
        del self._parser  # the two hold each other, and the buffers of TLS (256 KiB), until garbage is collected
        if self.guard is not None:
            self.guard.lost(self)
        self.server.lost(self)
        replies = [self._current, self._reply, *(reply for _, reply in self._queue)]
        self._current = self._reply = self._head = None
        self._drop_stream()
        self._queue.clear()
        for reply in replies:
            if reply is not None:
                reply.lose()

    def data_received(self, data: bytes) -> None:
        """Parse what has come."""
        if not self.busy and self.guard is not None:
            self.discarded += len(data)
            if self.discarded > self.guard.limits.discarded_bytes:
                self.cut()
                return
        if self._stopped:
            return
        rest = self._parse(data)
        while rest is not None:  # behind a head that asks for another protocol
            self._parse(self._head_without_upgrade())
            rest = self._parse(rest)
        if self._head is not None:
            self._reading = True
            self.server.reading.put(self)
        elif self._reading:
            self._reading = False
            self.server.reading.drop(self)

    def eof_received(self) -> bool:
        """A client that ends its side has hung up."""
        if self._current is not None:
            self.cut()
        return False

    def pause_writing(self) -> None:
        """The client does not read."""
        self.writable = False
        self._unsent = self.transport.get_write_buffer_size()
        self.server.unread.put(self)

    def resume_writing(self) -> None:
        """The client has read."""
        self.writable = True
        self.server.unread.drop(self)
        if self._current is None:
            self._pump()
        elif self._current.on_writable is not None:
            self._current.on_writable()

    # Called by the parser.

    def on_url(self, part: bytes) -> None:
        """The target, with which a request begins, or more of it."""
        if self._in_head:
            self._target += part
        elif len(self._queue) >= _MOST_PIPELINED:
            self._queue[-1][1].keep = False
            self._stopped = True
            raise _Stop
        else:
            self._target, self._headers = part, []
            self._received, self._in_head = 0, True
        if len(self._target) > self._limits.line_bytes:
            self._refuse(refusal(414, f"the request line is too long: expected at most {_line(self)} bytes"))

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header, or a trailer, of which nobody wants to know."""
        if self._in_head:
            self._headers.append((name.lower(), value.rstrip(b" \t")))

    def on_headers_complete(self) -> None:
        """Decide on the request by its head."""
        parser, headers = self._parser, self._headers
        method, version = parser.get_method(), parser.get_http_version()
        self._in_head = False
        if self._received or self._piece > self._limits.line_bytes or len(headers) > self._limits.headers:
            self._require_small(headers)
        if parser.should_upgrade() and method != b"CONNECT":
            self._upgrading = True  # `data_received` goes on
            return
        fields = dict(headers)
        try:
            target, path = read_request_line(method, self._target, version)
            if b"transfer-encoding" in fields:
                _require_chunked(version, headers)
            if len(fields) < len(headers):
                _require_one_host(headers)
        except ValueError as error:
            self._refuse(refusal(400, f"malformed HTTP request: {error}"), str(error))
        id_ = request_id(fields.get(b"x-request-id", b"").decode("latin-1"))
        head = Head(method, target, path, headers, fields, self.source, id_)
        self._reply = ClientReply(self, head, keep=parser.should_keep_alive(), old=version == "1.0")
        self.server.idle.drop(self)
        answer = self._admit(head)
        if answer is None:
            self._receive(head)
        elif answer.close or has_content(fields):
            self._refuse(answer)
        else:
            self._enqueue(answer, self._reply)
            self._reply = None

    def on_body(self, data: bytes) -> None:
        """Some of the body."""
        if self._stopped:
            raise _Stop
        reply = self._reply
        try:
            if self._stream is not None:
                self._stream.add(data)
                return
            assert reply is not None and reply.held is not None
            reply.held.add(data)
        except BodyError as error:
            self._refuse(refusal(error.status, error.message))

    def on_message_complete(self) -> None:
        """The request is complete."""
        head, reply = self._head, self._reply
        if head is not None and reply is not None:
            self._head = self._reply = None
            self._waits_for_continue = False
            if self._stream is None:
                self._enqueue(head, reply)
            else:
                stream, self._stream = self._stream, None
                reply.keep = self._parser.should_keep_alive()
                stream.end()

    # Called by replies, the server and the guard.

    def answered(self, reply: ClientReply) -> None:
        """The current answer has been written: go on with the next request, or end."""
        self._current = None
        if self._stream is not None:  # the rest of its body is not read
            self._drop_stream()
            self._stopped, self._head, self._reply = True, None, None
        if not reply.keep:
            self._end()
        elif not self._pumping:
            self._pump()

    def cut(self) -> None:
        """Close the connection at once."""
        if not self._lost:
            self.transport.abort()

    def close_if_idle(self) -> None:
        """Close the connection unless a request is being received or answered."""
        if self._current is None and self._head is None and not self._stopped:
            self.transport.close()

    def give_up(self) -> None:
        """Nothing has come for too long, in the middle of a body."""
        if self._paused:  # this server's own doing
            self.server.reading.put(self)
            return
        with suppress(_Stop):
            self._refuse(refusal(408, "no more of the body came in time"))

    def end_idle(self) -> None:
        """Nothing has come for too long between two requests, or an answer that is complete was not read."""
        if self.writable:
            self.cut()
        else:  # `check_reading` ends it
            self.server.idle.put(self)

    def check_reading(self) -> None:
        """Whether the client has read enough since this was looked at last, or else is in the way."""
        unsent = self.transport.get_write_buffer_size()
        if unsent > self._unsent - _MOST_UNSENT:
            self.cut()
        else:
            self._unsent = unsent
            self.server.unread.put(self)

    def stop_lingering(self) -> None:
        """The client has had the time to read the last answer."""
        if self.transport.get_write_buffer_size():
            self.server.idle.put(self)
            self.transport.close()
        else:
            self.cut()

    # The steps of a request.

    def _parse(self, data: bytes | memoryview) -> memoryview | None:
        """Parse what has come. What follows a head that asks for another protocol, which has not counted yet."""
        self._piece = len(data)
        self._received += self._piece
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            if self._upgrading:
                return memoryview(data)[upgrade.args[0] :]
        except httptools.HttpParserError as error:
            if not self._stopped:
                self._fail(error)
        else:
            if self._in_head or self._head is not None:
                self._bound_unfinished()
        return None

    def _bound_unfinished(self) -> None:
        """Refuse a head that does not end, and a body of which hardly anything is content."""
        limits, answer = self._limits, None
        if self._in_head:
            if self._received > limits.head_bytes or len(self._headers) > limits.headers:
                answer = _head_too_large(self)
        elif (body := self._stream or (self._reply.held if self._reply is not None else None)) is not None:
            content = body.size
            if self._received - content > 2 * limits.head_bytes + _FRAMING_EACH * content + self._piece:
                answer = refusal(400, "malformed HTTP request: a body of little more than its framing")
        if answer is not None:
            with suppress(_Stop):
                self._refuse(answer)

    def _require_small(self, headers: Headers) -> None:
        """Refuse a complete head that is too large. One that came in one small piece need not be asked."""
        limits = self._limits
        sizes = [len(name) + len(value) for name, value in headers]
        if len(sizes) > limits.headers or sum(sizes) > limits.head_bytes or max(sizes, default=0) > limits.line_bytes:
            self._refuse(_head_too_large(self))

    def _head_without_upgrade(self) -> bytes:
        """The same head for a new parser: go on in HTTP/1.1, as servers may (RFC 9110, 7.8).

        Java's client asks for HTTP/2 with every first request.
        """
        kept = [
            b"%b: %b\r\n" % header
            for header in self._headers
            if header[0] not in (b"upgrade", b"http2-settings", b"connection")
        ]
        version, keep = self._parser.get_http_version(), self._parser.should_keep_alive()
        kept.append(b"Connection: %b\r\n\r\n" % (b"keep-alive" if keep else b"close"))
        line = b"%b %b HTTP/%b\r\n" % (self._parser.get_method(), self._target, version.encode())
        self._parser = httptools.HttpRequestParser(self)
        self._upgrading = False
        return line + b"".join(kept)

    def _fail(self, error: httptools.HttpParserError) -> None:
        if isinstance(error, httptools.HttpParserCallbackError):
            _log.error("a request could not be parsed", exc_info=error.__context__)
            answer, told = refusal(500, "internal error"), None
        else:
            told = _HTTP2 if "PRI" in str(error) else str(error)
            answer = refusal(400, f"malformed HTTP request: {told}")
        with suppress(_Stop):
            self._refuse(answer, told)

    def _admit(self, head: Head) -> Whole | None:
        """What to answer at once, by the head alone: None to go on."""
        answer = self.server.handler.admit(head)
        if head.tenant is not None and self.guard is not None and not self.busy:
            self.guard.began(self)
        if answer is not None:
            return answer
        fields = head.fields
        try:
            encoding = fields.get(b"content-encoding")
            if encoding is not None and self._reply is not None:
                self._reply.encoding = encoding_named(encoding.decode("latin-1"))
            size = fields.get(b"content-length")
            if head.streamed is not None:
                if encoding is not None and self._reply is not None and self._reply.encoding != "identity":
                    return refusal(415, "Content-Encoding: expected none for a body of this size")
                require_length(int(size or 0), head.streamed.most)
            elif size is not None:
                self.server.bodies.require(int(size), head.tenant)
        except BodyError as error:
            return refusal(error.status, error.message)
        if b"expect" in fields and fields[b"expect"].lower() != b"100-continue":
            return refusal(417, "Expect: expected 100-continue")
        return None

    def _receive(self, head: Head) -> None:
        assert self._reply is not None
        if head.streamed is not None:
            self._receive_stream(head, self._reply, head.streamed)
            return
        self._head = head
        self._reply.held = Held(self.server.bodies, head.tenant)
        if b"expect" in head.fields and self._parser.get_http_version() == "1.1":
            self._waits_for_continue = True
            self._continue()

    def _receive_stream(self, head: Head, reply: ClientReply, streamed: Streamed) -> None:
        """Let the handler have a body as it comes."""
        if self._current is not None or self._queue:
            self._refuse(refusal(400, "a request with a body like this one cannot be pipelined: send it alone"))
        reply.keep = False  # until the body is complete
        self._head, self._current = head, reply
        self._stream = BodyStream(streamed.most, self._hold)
        if b"expect" in head.fields and self._parser.get_http_version() == "1.1":
            self.transport.write(_CONTINUE)
        if self.guard is not None and self.trusted:
            self.guard.began(self)
        try:
            streamed.receive(head, self._stream, reply)
        except Exception:
            reply.log_failure()
            reply.fail()

    def _hold(self, is_full: bool) -> None:
        """Read no more, or go on, as the reader of the body is behind or has caught up."""
        if is_full == self._paused or self.transport.is_closing():
            return
        self._paused = is_full
        if is_full:
            self.transport.pause_reading()
        else:
            self.transport.resume_reading()

    def _drop_stream(self) -> None:
        if self._stream is not None:
            stream, self._stream = self._stream, None
            stream.lose()

    def _continue(self) -> None:
        """Ask a client that waits for it (RFC 9110, 10.1.1) to send its body, when it is its turn."""
        if self._current is None and not self._queue:
            self._waits_for_continue = False
            self.transport.write(_CONTINUE)

    def _refuse(self, answer: Whole, malformed: str | None = None) -> None:
        """Answer, after what came before, and read nothing more. Raises _Stop."""
        if malformed is not None and self.guard is not None:
            self.guard.malformed(self.source, malformed)
        reply = self._reply or ClientReply(self, None)
        if reply.held is not None:
            reply.held.release()
        reply.keep = False
        self._stopped, self._head, self._reply, self._in_head = True, None, None, False
        self.server.idle.drop(self)
        if reply is self._current:
            self._refuse_in_mid_stream(answer, reply)
        else:
            self._enqueue(answer, reply)
        raise _Stop

    def _refuse_in_mid_stream(self, answer: Whole, reply: ClientReply) -> None:
        """Refuse a request that is being answered already, but for the rest of its body."""
        on_lost = reply.on_lost
        if reply.began:
            reply.abort()
        else:
            reply.whole(answer)
        if on_lost is not None:
            on_lost()

    def _enqueue(self, item: Head | Whole, reply: ClientReply) -> None:
        if self._current is None and not self._queue:
            self._begin(item, reply)
            return
        self._queue.append((item, reply))
        if len(self._queue) >= _PIPELINED and not self._paused:
            self._paused = True
            self.transport.pause_reading()

    def _begin(self, item: Head | Whole, reply: ClientReply) -> None:
        self._current = reply
        if isinstance(item, Whole):
            reply.whole(item)
            return
        if self.guard is not None and self.trusted:
            self.guard.began(self)
        assert reply.held is not None
        if reply.encoding == "identity":
            self._handle(Request(item, reply.held.joined()), reply)
        else:
            reply.on_lost = self.server.loop.create_task(self._decompress(item, reply, reply.held)).cancel

    def _handle(self, request: Request, reply: ClientReply) -> None:
        try:
            self.server.handler.handle(request, reply)
        except Exception:
            reply.log_failure()
            reply.fail()

    async def _decompress(self, head: Head, reply: ClientReply, held: Held) -> None:
        try:
            body = await decompressed(held.joined(), reply.encoding, self.server.bodies.limits.each, held.take)
        except BodyError as error:
            reply.whole(refusal(error.status, error.message))
        except Exception:
            reply.log_failure()
            reply.fail()
        else:
            self._handle(Request(head, body), reply)

    def _pump(self) -> None:
        """Answer the next request, if there is any and the client reads."""
        self._pumping = True
        while self._queue and self._current is None and self.writable and not self.transport.is_closing():
            self._begin(*self._queue.popleft())
        self._pumping = False
        if self._paused and len(self._queue) < _PIPELINED and not self.transport.is_closing():
            self._paused = False
            self.transport.resume_reading()
        if self._current is not None or self._queue or self.transport.is_closing():
            return
        if self._waits_for_continue:
            self._continue()
        if self._head is None and not self._stopped:
            if self.guard is not None:
                self.guard.finished(self)
            self.server.rest(self)

    def _end(self) -> None:
        """Close when the last answer has been sent. A client that still sends gets time to read it first.

        Closing with unread bytes would reset the connection, and the client might never see the answer (RFC 9112, 9.6).
        """
        if self.transport.is_closing():
            return
        self.server.idle.drop(self)
        if not self._stopped and self._head is None and not self._queue:
            self.server.idle.put(self)  # in case the client does not read
            self.transport.close()
            return
        self._stopped, self._waits_for_continue = True, False
        while self._queue:
            self._queue.pop()[1].lose()
        if self.transport.can_write_eof():
            with suppress(OSError):  # the client has reset the connection, and nobody has told us yet
                self.transport.write_eof()
        if self._paused:
            self._paused = False
            self.transport.resume_reading()
        self.server.lingering.put(self)


def _line(connection: Connection) -> int:
    return connection.server.limits.line_bytes


def _head_too_large(connection: Connection) -> Whole:
    limits = connection.server.limits
    expected = f"at most {limits.headers} headers of {limits.line_bytes} bytes, and {limits.head_bytes} bytes in all"
    return refusal(431, f"the request's head is too large: expected {expected}")


def _require_one_host(headers: Headers) -> None:
    """Raises ValueError for several hosts (RFC 9112, 3.2): a proxy before this server may have taken another one."""
    if sum(name == b"host" for name, _ in headers) > 1:
        raise ValueError("several headers Host")


def _require_chunked(version: str, headers: Headers) -> None:
    """Raises ValueError for what llhttp lets pass and nobody should send."""
    if version == "1.0":
        raise ValueError("Transfer-Encoding in a request of HTTP/1.0")
    if [value.lower() for name, value in headers if name == b"transfer-encoding"] != [b"chunked"]:
        raise ValueError("Transfer-Encoding: expected chunked")
