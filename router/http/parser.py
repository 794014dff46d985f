"""Reads requests from the bytes of a connection, with llhttp, and refuses what is malformed or too large."""

import logging
from typing import cast

import httptools

from ...core.net.compression import BodyError
from ...core.net.connection_guard import ConnectionLimits
from ...core.net.openai import request_id
from .heads import read_request_line, require_chunked, require_single
from .incoming import Incoming
from .messages import Head, Headers, Whole
from .pipeline import Pipeline
from .refusals import refusal

_FRAMING_EACH = 16  # bytes of a body's framing for one of its content; chunks of one byte have 5
_HTTP2 = "HTTP/2 is not spoken here: expected HTTP/1.1"

_log = logging.getLogger(__name__)


class _Stop(Exception):
    """Ends the parsing of what has come: nothing that follows on this connection is read."""


class RequestParser:
    """Gives heads and bodies to what receives them. The target of httptools' parser."""

    __slots__ = (
        "_headers", "_in_head", "_incoming", "_limits", "_llhttp", "_peer", "_piece", "_pipeline", "_received",
        "_target", "_upgrading", "stopped",
    )  # fmt: skip

    def __init__(self, incoming: Incoming, pipeline: Pipeline, limits: ConnectionLimits, peer: str) -> None:
        self._incoming, self._pipeline, self._limits, self._peer = incoming, pipeline, limits, peer
        self._llhttp = httptools.HttpRequestParser(self)
        self.stopped = False  # what comes is not parsed any more
        self._upgrading = False
        self._piece = 0  # bytes of what came last
        # Of the request that is being received.
        self._in_head = False
        self._target, self._headers = b"", cast(Headers, [])
        self._received = 0  # bytes that came after the piece in which it began

    def feed(self, data: bytes) -> None:
        """Parse what has come. Not to be called when this has stopped."""
        rest = self._parse(data)
        while rest is not None:  # behind a head that asks for another protocol
            self._parse(self._head_without_upgrade())
            rest = self._parse(rest)

    def stop(self) -> None:
        """Read nothing more."""
        self.stopped, self._in_head = True, False

    def refuse(self, answer: Whole, malformed: str | None = None) -> None:
        """Refuse the request that is being received, and read nothing more."""
        self.stop()
        self._incoming.refuse(answer, malformed)

    def close(self) -> None:
        """The connection is lost: let go of llhttp's parser, which has this one."""
        del self._llhttp

    # Called by llhttp's parser.

    def on_url(self, part: bytes) -> None:
        """The target, with which a request begins, or more of it."""
        if self._in_head:
            self._target += part
        elif self._pipeline.is_full:
            self._pipeline.end_after_last()
            self.stopped = True
            raise _Stop
        else:
            self._target, self._headers = part, []
            self._received, self._in_head = 0, True
        if len(self._target) > self._limits.line_bytes:
            expected = f"at most {self._limits.line_bytes} bytes"
            self._reject(refusal(414, f"the request line is too long: expected {expected}"))

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header, or a trailer, of which nobody wants to know."""
        if self._in_head:
            self._headers.append((name.lower(), value.rstrip(b" \t")))

    def on_headers_complete(self) -> None:
        """Have the request taken in by its head."""
        llhttp, headers = self._llhttp, self._headers
        method, version = llhttp.get_method(), llhttp.get_http_version()
        self._in_head = False
        if self._received or self._piece > self._limits.line_bytes or len(headers) > self._limits.headers:
            self._require_small(headers)
        if llhttp.should_upgrade() and method != b"CONNECT":
            self._upgrading = True  # `feed` goes on
            return
        fields = dict(headers)
        try:
            target, path = read_request_line(method, self._target, version)
            if b"transfer-encoding" in fields:
                require_chunked(version, headers)
            if len(fields) < len(headers):
                require_single(headers)
        except ValueError as error:
            self._reject(refusal(400, f"malformed HTTP request: {error}"), str(error))
        id_ = request_id(fields.get(b"x-request-id", b"").decode("latin-1"))
        head = Head(method, target, path, headers, fields, self._peer, id_)
        answer = self._incoming.begin(head, keep=llhttp.should_keep_alive(), old=version == "1.0")
        if answer is not None:
            self._reject(answer)

    def on_body(self, data: bytes) -> None:
        """Some of the body."""
        if self.stopped:
            raise _Stop
        try:
            self._incoming.add(data)
        except BodyError as error:
            self._reject(refusal(error.status, error.message))

    def on_message_complete(self) -> None:
        """The request is complete."""
        incoming = self._incoming
        incoming.complete(keep=incoming.stream is not None and self._llhttp.should_keep_alive())

    # The steps of a piece.

    def _parse(self, data: bytes | memoryview) -> memoryview | None:
        """Parse what has come. What follows a head that asks for another protocol, which has not counted yet."""
        self._piece = len(data)
        self._received += self._piece
        try:
            self._llhttp.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            if self._upgrading:
                return memoryview(data)[upgrade.args[0] :]
        except httptools.HttpParserError as error:
            if not self.stopped:
                self._fail(error)
        else:
            if self._in_head or self._incoming.head is not None:
                self._bound_unfinished()
        return None

    def _bound_unfinished(self) -> None:
        """Refuse a head that does not end, and a body of which hardly anything is content."""
        limits = self._limits
        if self._in_head:
            if self._received > limits.head_bytes or len(self._headers) > limits.headers:
                self.refuse(self._head_too_large())
            return
        content = self._incoming.size
        if content is None:
            return
        if self._received - content > 2 * limits.head_bytes + _FRAMING_EACH * content + self._piece:
            self.refuse(refusal(400, "malformed HTTP request: a body of little more than its framing"))

    def _require_small(self, headers: Headers) -> None:
        """Refuse a complete head that is too large. One that came in one small piece need not be asked."""
        limits = self._limits
        sizes = [len(name) + len(value) for name, value in headers]
        if len(sizes) > limits.headers or sum(sizes) > limits.head_bytes or max(sizes, default=0) > limits.line_bytes:
            self._reject(self._head_too_large())

    def _head_too_large(self) -> Whole:
        limits = self._limits
        expected = f"at most {limits.headers} headers of {limits.line_bytes} bytes"
        expected += f", and {limits.head_bytes} bytes in all"
        return refusal(431, f"the request's head is too large: expected {expected}")

    def _head_without_upgrade(self) -> bytes:
        """The same head for a new parser: go on in HTTP/1.1, as servers may (RFC 9110, 7.8).

        Java's client asks for HTTP/2 with every first request.
        """
        kept = [
            b"%b: %b\r\n" % header
            for header in self._headers
            if header[0] not in (b"upgrade", b"http2-settings", b"connection")
        ]
        version, keep = self._llhttp.get_http_version(), self._llhttp.should_keep_alive()
        kept.append(b"Connection: %b\r\n\r\n" % (b"keep-alive" if keep else b"close"))
        line = b"%b %b HTTP/%b\r\n" % (self._llhttp.get_method(), self._target, version.encode())
        self._llhttp = httptools.HttpRequestParser(self)
        self._upgrading = False
        return line + b"".join(kept)

    def _fail(self, error: httptools.HttpParserError) -> None:
        if isinstance(error, httptools.HttpParserCallbackError):
            _log.error("a request could not be parsed", exc_info=error.__context__)
            self.refuse(refusal(500, "internal error"))
        else:
            told = _HTTP2 if "PRI" in str(error) else str(error)
            self.refuse(refusal(400, f"malformed HTTP request: {told}"), told)

    def _reject(self, answer: Whole, malformed: str | None = None) -> None:
        """Refuse the request, from inside of llhttp's parser. Raises _Stop."""
        self.refuse(answer, malformed)
        raise _Stop
