"""A server with a handler that the test steers, in an event loop beside the test, and bare sockets as its clients."""

import asyncio
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import uvloop

from slurminfer.core.net.connection_guard import ConnectionLimits, Guard
from slurminfer.core.net.identity import client_context, make_identity, server_context
from slurminfer.core.net.sockets import listening_socket
from slurminfer.router.http.bodies import BodyLimits
from slurminfer.router.http.messages import Head, Reply, Request, Whole
from slurminfer.router.http.server import Server

from ...support.loop import Loop

LIMITS = ConnectionLimits(connections=100, strangers_per_source=50, discarded_bytes=2**20)


class Steered:
    """A handler that lets in who has the key, and answers as the path says.

    /echo: the body; /parts: the body, byte by byte; /wait: when `go` is set; /raise; /silent: nothing at all;
    /short: fewer bytes than announced; anything else: as the test's function `then` says.
    """

    def __init__(self) -> None:
        self.heads: list[Head] = []
        self.requests: list[Request] = []
        self.go = asyncio.Event()
        self.cancelled = 0
        self.then: Callable[[Request, Reply], Any] | None = None

    def admit(self, head: Head) -> Whole | None:
        self.heads.append(head)
        if head.fields.get(b"authorization") != b"Bearer key":
            return Whole(401, b"no key", [(b"content-type", b"text/plain")])
        head.tenant = sys.intern((head.fields.get(b"x-tenant", b"me")).decode())
        return None

    def handle(self, request: Request, reply: Reply) -> None:
        self.requests.append(request)
        reply.run(self._answer(request, reply))

    async def _answer(self, request: Request, reply: Reply) -> None:
        try:
            await self._handle(request, reply)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise

    async def _handle(self, request: Request, reply: Reply) -> None:
        path = request.head.path
        if path == "/raise":
            raise RuntimeError("a defect")
        if path == "/silent":
            return
        if path == "/wait":
            await self.go.wait()
        if path == "/parts":
            reply.begin(200, [(b"x-from", b"worker")])
            for at in range(len(request.body)):
                reply.write(request.body[at : at + 1])
            reply.end()
        elif path == "/short":
            reply.begin(200, [], len(request.body) + 1)
            reply.write(request.body)
            reply.end()
        elif self.then is not None:
            await self.then(request, reply)
        else:
            reply.whole(Whole(200, request.body, [(b"x-from", b"worker")]))


class Served:
    """The server; its clock stands still unless the test ticks."""

    def __init__(self, loop: Loop, path: str | None, limits: ConnectionLimits, bodies: BodyLimits) -> None:
        self.loop, self.handler = loop, Steered()
        self._path = path
        loop.run(self._start(limits, bodies))

    async def _start(self, limits: ConnectionLimits, bodies: BodyLimits) -> None:
        self.guard = Guard(limits)
        self.server = Server(self.handler, self.guard, bodies)
        sock = socket.socket(socket.AF_UNIX if self._path else socket.AF_INET)
        sock.bind(self._path or ("127.0.0.1", 0))
        self.address = sock.getsockname()
        await self.server.listen(sock)

    def connect(self) -> socket.socket:
        client = socket.socket(socket.AF_UNIX if self._path else socket.AF_INET)
        client.settimeout(20)
        try:
            client.connect(self.address)
        except OSError:
            client.close()
            raise
        return client

    def ask(self, *pieces: bytes) -> bytes:
        """What comes back on a new connection until the server closes it."""
        with self.connect() as client:
            for piece in pieces:
                client.sendall(piece)
            return until_closed(client)

    def tick(self, count: int = 1) -> None:
        for _ in range(count):
            self.call(self.server.tick)

    def call(self, what: Callable[[], Any]) -> Any:
        """What `what` returns in the server's thread."""

        async def run() -> Any:
            return what()

        return self.loop.run(run())

    def stop(self) -> None:
        async def stop() -> None:
            self.handler.go.set()
            self.server.close()
            self.server.abort()
            assert await self.server.drained(20)

        self.loop.run(stop())


def until_closed(client: socket.socket) -> bytes:
    got = b""
    try:
        while piece := client.recv(65536):
            got += piece
    except ConnectionResetError:
        pass
    return got


def answers(data: bytes) -> list[tuple[int, dict[bytes, bytes], bytes]]:
    """Status, headers and body of each answer in `data`. Fails where one is not complete."""
    found = []
    while data:
        head, end, data = data.partition(b"\r\n\r\n")
        assert end, head
        line, *fields = head.split(b"\r\n")
        assert line.startswith(b"HTTP/1.1 "), line
        status, headers = int(line.split(b" ")[1]), {}
        for one in fields:
            name, _, value = one.partition(b": ")
            assert name.lower() not in headers, one
            headers[name.lower()] = value
        body = b""
        if headers.get(b"transfer-encoding") == b"chunked":
            while True:
                size, _, data = data.partition(b"\r\n")
                piece, data = data[: int(size, 16)], data[int(size, 16) :]
                assert data.startswith(b"\r\n")
                data, body = data[2:], body + piece
                if not piece:
                    break
        elif b"content-length" in headers:
            length = int(headers[b"content-length"])
            body, data = data[:length], data[length:]
            assert len(body) == length
        elif status not in (100, 204, 304):
            body, data = data, b""
        found.append((status, headers, body))
    return found


def head(*lines: str, line: str = "POST /echo HTTP/1.1", key: str = "key") -> bytes:
    return "\r\n".join([line, "Host: x", f"Authorization: Bearer {key}", *lines, "", ""]).encode("latin-1")


def post(body: bytes, *lines: str, line: str = "POST /echo HTTP/1.1") -> bytes:
    return head(f"Content-Length: {len(body)}", *lines, line=line) + body


@pytest.fixture(scope="session")
def fast() -> Iterator[Loop]:
    """A loop of uvloop, as the relays have."""
    loop = Loop(uvloop.new_event_loop())
    yield loop
    loop.close()


@pytest.fixture
def serving(fast: Loop, tmp_path: Path) -> Iterator[Callable[..., Served]]:
    made = []

    def serve(unix: bool = False, limits: ConnectionLimits = LIMITS, bodies: BodyLimits | None = None) -> Served:
        made.append(Served(fast, str(tmp_path / "s") if unix else None, limits, bodies or BodyLimits()))
        return made[-1]

    yield serve
    for server in made:
        server.stop()


@pytest.fixture
def served(serving: Callable[..., Served]) -> Served:
    return serving()


@pytest.fixture
def secure(served: Served, fast: Loop, tmp_path: Path) -> Callable[..., Callable[[], socket.socket]]:
    """Opens a further port of the server; what connects to it with its identity."""
    make_identity(tmp_path / "identity", "router")

    def opened(*, private: bool) -> Callable[[], socket.socket]:
        listener = listening_socket("127.0.0.1")
        served.address = listener.getsockname()
        fast.run(served.server.listen(listener, server_context(tmp_path / "identity"), private=private))
        context = client_context(tmp_path / "identity")
        return lambda: context.wrap_socket(served.connect())

    return opened
