"""Streams to measure a router with: an upstream that computes nothing, and clients that count.

    python -m benchmarks.router.streams SOCKET   the upstream as a process of its own; prints its port

The upstream is a load generator and no engine. It answers every POST with an endless stream, chunked, and writes one
event to each stream at every step, as a batching engine does for every token. `GET /steps/N` makes it N steps a second
(0: as many as are read), `GET /streams` says how many streams there are; any other GET is answered with 200.
"""

import asyncio
import json
import re
import socket
import sys
import time
from typing import cast

import uvloop

_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nTransfer-Encoding: chunked\r\n\r\n"
_EVENT = (
    'data: {"id":"cmpl-8f2b6c1d9e3a4f60b7a5c4d3e2f1a0b9","object":"text_completion","created":1700000000,'
    '"model":"streams","choices":[{"index":0,"text":" word","logprobs":null,"finish_reason":null,'
    '"matched_stop":null}],"usage":null,"made_ns":%d}\n\n'
)
_MADE = re.compile(rb'"made_ns":(\d+)}\n')
_SIZE = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)


def event() -> bytes:
    """An event as vLLM and SGLang send it for a token, as a chunk; it says when it was made."""
    data = (_EVENT % time.monotonic_ns()).encode()
    return b"%x\r\n%b\r\n" % (len(data), data)


class StreamSource:
    """What writes to all streams at once."""

    def __init__(self) -> None:
        self.streams: set[Upstream] = set()
        self.steps_per_s = 0.0

    async def run(self) -> None:
        """Write an event to each stream at every step, without end."""
        due = time.monotonic()
        while True:
            chunk = event()
            for stream in self.streams:
                if not stream.paused:
                    stream.transport.write(chunk)
            due = max(due + 1 / self.steps_per_s, time.monotonic()) if self.steps_per_s else 0
            await asyncio.sleep(max(0.0, due - time.monotonic()))


class Upstream(asyncio.Protocol):
    """One connection to the source."""

    def __init__(self, source: StreamSource) -> None:
        self._source, self._got, self.paused = source, b"", False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._source.streams.discard(self)

    def pause_writing(self) -> None:
        self.paused = True

    def resume_writing(self) -> None:
        self.paused = False

    def data_received(self, data: bytes) -> None:
        self._got += data
        head, found, body = self._got.partition(b"\r\n\r\n")
        size = _SIZE.search(head)
        if not found or len(body) < (int(size[1]) if size else 0):
            return
        self._got = b""
        method, path = head.split(b" ", 2)[:2]
        if method == b"POST":
            self.transport.write(_HEAD + event())
            self._source.streams.add(self)
            return
        if path.startswith(b"/steps/"):
            self._source.steps_per_s = float(path.removeprefix(b"/steps/"))
        said = json.dumps({"streams": len(self._source.streams)}).encode()
        head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(said)
        self.transport.write(head + said)


class Client(asyncio.Protocol):
    """One stream as its reader sees it."""

    def __init__(self, request: bytes) -> None:
        self._request, self._tail = request, b""
        self.events = 0
        self.late_s: list[float] | None = None  # for each event from its making, where asked for
        self.first: asyncio.Future[float] = asyncio.get_running_loop().create_future()  # seconds until it came

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def ask(self) -> None:
        """Send the request."""
        self._began = time.monotonic()
        self.transport.write(self._request)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.first.done():
            self.first.set_exception(ConnectionError(f"no event: {self._tail!r}"))

    def data_received(self, data: bytes) -> None:
        now = time.monotonic()
        data = self._tail + data
        whole = data.rfind(b"\n\n") + 1
        self._tail = data[whole:]
        count = data.count(b"\n\n", 0, whole + 1)
        self.events += count
        if count and not self.first.done():
            self.first.set_result(now - self._began)
        if self.late_s is not None:
            self.late_s += [now - int(made) / 1e9 for made in _MADE.findall(data, 0, whole)]


async def open_streams(url: str, key: str, count: int) -> list[Client]:
    """So many streams, asked for at once, that have all begun."""
    host, port = url.removeprefix("http://").split(":")
    body = json.dumps({"model": "streams", "prompt": "Count.", "max_tokens": 10**6, "stream": True})
    head = f"POST /v1/completions HTTP/1.1\r\nHost: {host}:{port}\r\nAuthorization: Bearer {key}\r\n"
    request = f"{head}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()
    loop = asyncio.get_running_loop()
    clients = [(await loop.create_connection(lambda: Client(request), host, int(port)))[1] for _ in range(count)]
    await asyncio.sleep(0.1)
    for client in clients:
        client.ask()
    async with asyncio.timeout(60):
        await asyncio.gather(*(client.first for client in clients))
    return clients


async def main() -> None:
    source = StreamSource()
    loop = asyncio.get_running_loop()
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as sock:
        server = await loop.create_server(lambda: Upstream(source), sock=sock)
        unix = await loop.create_unix_server(lambda: Upstream(source), sys.argv[1], backlog=1024)
        print(sock.getsockname()[1], flush=True)
        async with server, unix:
            await source.run()


if __name__ == "__main__":
    uvloop.run(main())
