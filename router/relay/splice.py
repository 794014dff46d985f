"""Events from a worker's socket to whoever passes them on, without a task waking up for each.

aiohttp's client hands a body over through a queue to a sleeping task. That, and its writing of a chunk, took more than
half of the CPU time that the router spent on an event outside the kernel. A splice stands between a worker's connection
and aiohttp, for one answer. If the head announces events in chunks, aiohttp gets the head and the last chunk, and the
splice takes apart what is between them; of any other answer aiohttp gets everything. So requests, heads, trailers and
the reuse of connections stay aiohttp's, and a body that breaks off is an error of its `content`.
"""

import asyncio
import re
from collections.abc import Callable
from typing import cast

import aiohttp

_MOST_HELD = _MOST_HEAD = 64 * 1024  # bytes; a longer head is left to aiohttp, which refuses it
_LINE, _LONGEST_LINE = re.compile(rb"([0-9a-fA-F]{1,8})(?:[ \t]*;[^\r\n]*)?\r\n"), 1024


class Chunks:
    """A chunked body (RFC 9112, 7.1) without its framing, up to the last chunk."""

    def __init__(self) -> None:
        self._line = b""  # the beginning of a chunk's first line
        self._left, self._end = 0, b""  # what is missing of a chunk: bytes of content, and its line's end
        self.rest: bytes | None = None  # from the last chunk on
        self.broken = False  # no chunks; nothing that follows makes sense

    def feed(self, data: bytes) -> bytes:
        """The content that `data` has. Not to be called again once there is a `rest` or it is `broken`."""
        if self._line:
            data, self._line = self._line + data, b""
        at, parts = 0, []
        while at < len(data):
            if not self._end:
                line = _LINE.match(data, at)
                if line is None:
                    self._line = data[at:]
                    self.broken = b"\n" in self._line or len(self._line) > _LONGEST_LINE
                    break
                self._left, self._end = int(line[1], 16), b"\r\n"
                if not self._left:
                    self.rest = data[at:]
                    break
                at = line.end()
            content = data[at : at + self._left]
            parts.append(content)
            self._left -= len(content)
            at += len(content)
            if not self._left:
                end = data[at : at + len(self._end)]
                if not self._end.startswith(end):
                    self.broken = True
                    break
                self._end = self._end[len(end) :]
                at += len(end)
        return b"".join(parts)


class Splice(asyncio.Protocol):
    """The protocol of a worker's connection from before a request is sent until its answer's last chunk."""

    def __init__(self, connection: aiohttp.connector.Connection) -> None:
        assert connection.transport is not None and connection.protocol is not None
        self._transport, self._aiohttp = connection.transport, connection.protocol
        self._take: Callable[[bytes], None] = self._take_head
        self._chunks = Chunks()
        self._held = b""  # the beginning of a head, then content that nobody has read
        self._rest: bytes | None = None  # what aiohttp is to get after that
        self._write: Callable[[bytes], bool] | None = None
        self._paused = self._over = False
        self._waiter: asyncio.Future[None] | None = None
        self._transport.set_protocol(self)

    async def read(self) -> bytes:
        """Content as it comes; none where aiohttp's `content` has what follows, or says what is wrong."""
        while not self._held and not self._over:
            await self._wait()
        data, self._held = self._held, b""
        if not data:
            self._give_back()
        return data

    async def pour(self, write: Callable[[bytes], bool]) -> None:
        """Content to `write` as it comes, until that says False, or nothing more comes here; then `read`."""
        if self._held or self._over:
            return
        self._write = write
        try:
            await self._wait()
        finally:
            self._write = None

    def data_received(self, data: bytes) -> None:
        """Take what the worker has sent: head, chunks, or what follows them."""
        self._take(data)

    def eof_received(self) -> None:
        self._aiohttp.eof_received()

    def pause_writing(self) -> None:
        self._aiohttp.pause_writing()

    def resume_writing(self) -> None:
        self._aiohttp.resume_writing()

    def connection_lost(self, error: Exception | None) -> None:
        """Tell aiohttp, and wake whoever waits for content: there is no more."""
        if self._rest is not None:  # uvloop's TLS tells of an end that came together with the rest, although paused
            rest, self._rest = self._rest, None
            self._aiohttp.data_received(rest)
        self._aiohttp.connection_lost(error)
        self._end()

    def _take_head(self, data: bytes) -> None:
        self._held += data
        end = self._held.find(b"\r\n\r\n") + 4
        if end < 4 and len(self._held) < _MOST_HEAD:
            return
        head, body, self._held = self._held[:end], self._held[end:], b""
        if _announces_events(head):
            self._aiohttp.data_received(head)
            self._take = self._take_body
            self._take_body(body)
        else:
            self._rest = head + body
            self._end()
            self._give_back()

    def _take_body(self, data: bytes) -> None:
        content = self._chunks.feed(data)
        if self._chunks.rest is not None:
            self._rest = self._chunks.rest
            self._pause()  # a worker that closes its connection now is to be heard after the rest
            self._end()
        elif self._chunks.broken:
            self._transport.abort()  # to aiohttp, that is a body without an end
        if not content or (self._write is not None and self._write(content)):
            return
        if self._write is None:
            self._held += content
            if len(self._held) > _MOST_HELD:
                self._pause()
        self._write = None
        self._wake()

    def _give_back(self) -> None:
        """aiohttp is its connection's protocol again."""
        if self._rest is not None:
            rest, self._rest = self._rest, None
            self._transport.set_protocol(self._aiohttp)
            self._resume()
            self._aiohttp.data_received(rest)

    def _end(self) -> None:
        self._over = True
        self._wake()

    async def _wait(self) -> None:
        self._resume()
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _pause(self) -> None:
        if not self._paused and not self._transport.is_closing():
            self._transport.pause_reading()
            self._paused = True

    def _resume(self) -> None:
        if self._paused and not self._transport.is_closing():
            self._transport.resume_reading()
        self._paused = False


class SplicedResponse(aiohttp.ClientResponse):
    """A worker's answer. `splice` has the beginning of its body, if not all."""

    splice: Splice


class SplicedRequest(aiohttp.ClientRequest):
    """A request whose answer is spliced."""

    async def send(self, conn: aiohttp.connector.Connection) -> aiohttp.ClientResponse:
        """Send the request as aiohttp does, with a Splice in place before the answer's first byte."""
        splice = Splice(conn)
        response = cast(SplicedResponse, await super().send(conn))
        response.splice = splice
        return response


def _announces_events(head: bytes) -> bool:
    """Whether this is the head of a good answer whose body is events in chunks, written as servers do."""
    head = head.lower()
    return (
        head.startswith(b"http/1.1 200 ")
        and b"\r\ncontent-type: text/event-stream" in head
        and b"\r\ntransfer-encoding: chunked\r\n" in head
    )
