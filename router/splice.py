"""Events from a worker's socket to whoever passes them on, without a task waking up for each.

aiohttp's client hands a body over through a queue and a sleeping task, which costs more than all else that is done with
an event. A splice stands between a worker's connection and aiohttp for one answer. It gives aiohttp the head. If that
announces events in chunks, it takes the chunks apart itself, and gives aiohttp the end of the body again, or whatever
it does not know. So requests, heads, trailers, errors and the reuse of connections stay aiohttp's.
"""

import asyncio
import re
from collections.abc import Callable
from typing import cast

import aiohttp

_MOST_HELD = 64 * 1024  # bytes that wait to be read
_MOST_HEAD = 64 * 1024
_SIZE = re.compile(rb"([0-9a-fA-F]{1,8})\r\n")
_INVALID = b"?\r\n"  # what no parser takes for a chunk's size


class Chunks:
    """A chunked body (RFC 9112, 7.1) as bytes. Stops before the last chunk and before anything unusual."""

    def __init__(self) -> None:
        self._short = b""  # too little to understand
        self._left = 0  # bytes missing of the chunk that has begun
        self.rest: bytes | None = None  # what stopped it, for another parser at the beginning of a chunk

    def feed(self, data: bytes) -> bytes:
        """The content of `data`."""
        data, at, parts = self._short + data, 0, []
        self._short = b""
        while at < len(data):
            if not self._left:
                line = _SIZE.match(data, at)
                if line is None and len(data) - at < 10 and b"\n" not in data[at:]:
                    self._short = data[at:]
                    break
                if line is None or not (size := int(line[1], 16)):
                    self.rest = data[at:]
                    break
                self._left, at = size, line.end()
            end = at + self._left
            if data.startswith(b"\r\n", end):
                parts.append(data[at:end])
                self._left, at = 0, end + 2
            elif len(data) >= end + 2:
                self.rest = _INVALID
                break
            else:  # its last byte stays, so that what is missing is never only the line's end
                until = min(len(data), end - 1)
                parts.append(data[at:until])
                self._left, self._short = end - until, data[until:]
                break
        return b"".join(parts)


class Splice(asyncio.Protocol):
    """The protocol of a worker's connection from before a request is sent until its answer's last chunk."""

    def __init__(self, connection: aiohttp.connector.Connection) -> None:
        assert connection.transport is not None and connection.protocol is not None
        self._transport, self._aiohttp = connection.transport, connection.protocol
        self._take: Callable[[bytes], None] = self._take_head
        self._chunks = Chunks()
        self._held = b""  # the beginning of a head, then content that nobody has read
        self._write: Callable[[bytes], bool] | None = None
        self._paused = self._over = False
        self._waiter: asyncio.Future[None] | None = None
        self._transport.set_protocol(self)

    async def read(self) -> bytes:
        """Content as it comes. Nothing: there is no more here, aiohttp's `content` has the rest, or says what is wrong."""
        while not self._held and not self._over:
            await self._wait()
        data, self._held = self._held, b""
        if not data:
            self._give_back()
        return data

    async def pour(self, write: Callable[[bytes], bool]) -> None:
        """Content to `write` as it comes, until that says False. It goes on with `read`."""
        if self._held or self._over:
            return
        self._write = write
        try:
            await self._wait()
        finally:
            self._write = None

    def data_received(self, data: bytes) -> None:
        self._take(data)

    def eof_received(self) -> None:
        self._aiohttp.eof_received()

    def pause_writing(self) -> None:
        self._aiohttp.pause_writing()

    def resume_writing(self) -> None:
        self._aiohttp.resume_writing()

    def connection_lost(self, error: Exception | None) -> None:
        self._give_back()
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
            if body:
                self._take_body(body)
        else:
            self._end()
            self._chunks.rest = head + body
            self._give_back()

    def _take_body(self, data: bytes) -> None:
        content = self._chunks.feed(data)
        if self._chunks.rest is not None:
            self._take = self._take_rest
            self._pause()
            self._end()
        if self._write is None:
            self._held += content
            if len(self._held) > _MOST_HELD:
                self._pause()
        elif not content or self._write(content):
            return
        else:
            self._write = None
            self._pause()
        self._wake()

    def _take_rest(self, data: bytes) -> None:
        assert self._chunks.rest is not None
        self._chunks.rest += data

    def _give_back(self) -> None:
        """aiohttp is its connection's protocol again."""
        if self._chunks.rest is not None:
            rest, self._chunks.rest = self._chunks.rest, None
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
        and head.count(b"\r\ntransfer-encoding:") == 1
    )
