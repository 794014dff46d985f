"""Connections of a server: who is closed when they are too many, or silent."""

import asyncio
import socket
from collections.abc import Iterator
from contextlib import closing

import pytest
from aiohttp import web

from slurminfer.core.net.compression import BodyError
from slurminfer.core.net.connection_guard import ConnectionLimits, limits_of_process
from slurminfer.core.net.http_body import read_body
from slurminfer.core.net.http_limits import ConnectionGuard

from ..support.loop import Loop
from ..support.waiting import eventually

KEY = "Bearer key"
LIMITS = ConnectionLimits(connections=6, strangers_per_source=4, discarded_bytes=100_000)


class Served:
    """A server whose clock stands still, unless the test ticks."""

    def __init__(self, loop: Loop, limits: ConnectionLimits, path: str | None) -> None:
        self.loop, self.guard, self.go = loop, ConnectionGuard(limits), asyncio.Event()
        self._path = path
        loop.run(self._start())

    async def _start(self) -> None:
        app = web.Application()
        app.router.add_post("/read", self._read)
        app.router.add_post("/wait", self._wait)
        app.router.add_get("/broken", self._broken)
        self._runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
        await self._runner.setup()
        family = socket.AF_UNIX if self._path else socket.AF_INET
        sock = socket.socket(family)
        sock.bind(self._path or ("127.0.0.1", 0))
        self.address = sock.getsockname()
        await self.guard.listen(self._runner, sock)
        assert self.guard._clock is not None
        self.guard._clock.cancel()

    def _admit(self, request: web.Request) -> None:
        if request.headers.get("Authorization") != KEY:
            raise web.HTTPUnauthorized
        self.guard.trust(request)

    async def _read(self, request: web.Request) -> web.Response:
        self._admit(request)
        try:
            return web.Response(body=await read_body(request, 1000))
        except BodyError as error:
            return web.Response(status=error.status, text=error.message)

    async def _wait(self, request: web.Request) -> web.Response:
        self._admit(request)
        await self.go.wait()
        return web.Response(text="waited")

    async def _broken(self, request: web.Request) -> web.Response:
        raise ValueError("a defect")

    def tick(self, count: int = 1) -> None:
        async def tick() -> None:
            for _ in range(count):
                self.guard.tick()

        self.loop.run(tick())

    def counts(self) -> dict[str, int]:
        async def counts() -> dict[str, int]:
            return self.guard.counts

        return self.loop.run(counts())

    def connect(self) -> socket.socket:
        """A new connection, which the server knows of unless it was closed at once."""
        client = socket.socket(socket.AF_UNIX if self._path else socket.AF_INET)
        client.settimeout(20)
        client.connect(self.address)
        return client

    def stop(self) -> None:
        async def stop() -> None:
            self.go.set()
            self.guard.close()
            await self._runner.cleanup()

        self.loop.run(stop())


@pytest.fixture
def served(request: pytest.FixtureRequest, tmp_path) -> Iterator[Served]:
    path = str(tmp_path / "s") if getattr(request, "param", "tcp") == "unix" else None
    loop = Loop()
    server = Served(loop, LIMITS, path)
    yield server
    server.stop()
    loop.close()


def head(path: str = "/read", *, key: str = KEY, length: int = 2, more: str = "") -> bytes:
    return f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: {key}\r\nContent-Length: {length}\r\n{more}\r\n".encode()


def ask(client: socket.socket, data: bytes) -> bytes:
    """What comes back up to the end of the answer, or up to the connection's end."""
    client.sendall(data)
    return answer(client)


def answer(client: socket.socket) -> bytes:
    got = b""
    while b"\r\n\r\n" not in got or len(got.partition(b"\r\n\r\n")[2]) < length_of(got):
        piece = client.recv(65536)
        if not piece:
            break
        got += piece
    return got


def length_of(got: bytes) -> int:
    [line] = [line for line in got.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    return int(line.partition(b":")[2])


def is_closed(client: socket.socket) -> bool:
    """Waits for the end of the connection, or for the timeout of the socket, which is a failure."""
    try:
        return client.recv(1) == b""
    except ConnectionResetError:
        return True


@pytest.mark.parametrize("served", ["tcp", "unix"], indirect=True)
def test_a_silent_connection_is_closed_after_the_time_for_a_head(served):
    with closing(served.connect()) as silent, closing(served.connect()) as trickling:
        trickling.sendall(b"POST /read HTT")
        eventually(lambda: served.counts()["stranger"] == 2, "both are there")
        served.tick(LIMITS.stranger_s - 1)
        assert served.counts()["stranger"] == 2
        served.tick()
        assert is_closed(silent) and is_closed(trickling)
        assert served.counts()["stranger"] == 0


def test_a_trusted_connection_outlives_that_time(served):
    with closing(served.connect()) as client:
        assert ask(client, head() + b"ok").endswith(b"ok")
        served.tick(LIMITS.stranger_s * 3)
        assert ask(client, head() + b"ok").endswith(b"ok")
        assert served.counts() == {"stranger": 0, "idle": 1, "busy": 0}


def test_a_wrong_key_makes_no_trust(served):
    with closing(served.connect()) as client:
        assert b" 401 " in ask(client, head(key="Bearer other", length=0))
        served.tick(LIMITS.stranger_s)
        assert is_closed(client)


def test_a_source_with_too_many_strangers_loses_its_oldest(served):
    with closing(served.connect()) as trusted:
        ask(trusted, head() + b"ok")
        strangers = [served.connect() for _ in range(LIMITS.strangers_per_source + 1)]
        assert is_closed(strangers[0])
        assert served.counts() == {"stranger": LIMITS.strangers_per_source, "idle": 1, "busy": 0}
        assert ask(trusted, head() + b"ok").endswith(b"ok")
        assert ask(strangers[1], head() + b"ok").endswith(b"ok")
        for client in strangers:
            client.close()


@pytest.mark.parametrize("served", ["unix"], indirect=True)
def test_when_all_are_too_many_strangers_go_first_then_whoever_is_idle_for_longest(served):
    idle = [served.connect() for _ in range(3)]
    for client in idle:
        ask(client, head() + b"ok")
    ask(idle[0], head() + b"ok")  # now 1 is idle for longest
    busy = [served.connect() for _ in range(2)]
    for client in busy:
        client.sendall(head("/wait", length=0))
    eventually(lambda: served.counts() == {"stranger": 0, "idle": 3, "busy": 2}, "five are there")
    stranger, newest = served.connect(), served.connect()
    assert is_closed(stranger)
    ask(newest, head() + b"ok")
    another = served.connect()
    assert is_closed(idle[1])
    assert ask(another, head() + b"ok").endswith(b"ok")
    served.loop.soon(served.go.set)
    for client in busy:
        assert answer(client).endswith(b"waited")
    for client in [*idle, *busy, stranger, newest, another]:
        client.close()


@pytest.mark.parametrize("served", ["unix"], indirect=True)
def test_when_all_are_busy_a_new_connection_is_closed_and_no_other(served):
    busy = [served.connect() for _ in range(LIMITS.connections)]
    for client in busy:
        client.sendall(head("/wait", length=0))
    eventually(lambda: served.counts()["busy"] == LIMITS.connections, "all are busy")
    with closing(served.connect()) as refused:
        assert is_closed(refused)
    served.loop.soon(served.go.set)
    for client in busy:
        assert answer(client).endswith(b"waited")
        client.close()


def test_a_body_without_the_key_is_read_up_to_a_bound(served):
    with closing(served.connect()) as client, pytest.raises(ConnectionError):
        client.sendall(head(key="none", length=10**9))
        for _ in range(10_000):
            client.sendall(bytes(2**16))


def test_what_is_not_http_is_answered_in_openais_shape_and_logged_once(served, caplog):
    for _ in range(20):
        with closing(served.connect()) as client:
            got = ask(client, b"GET /read HTTP/1.1\r\nbad header\r\n\r\n")
            assert got.startswith(b"HTTP/1.") and b" 400 " in got
            assert b'"type":"invalid_request_error"' in got
    served.tick(60)
    [first, sum] = caplog.records
    assert len(first.getMessage()) < 400 and first.exc_info is None
    assert sum.getMessage() == "19 more malformed HTTP requests in the last minute"


def test_a_defect_is_answered_with_500_in_openais_shape(served, caplog):
    with closing(served.connect()) as client:
        got = ask(client, b"GET /broken HTTP/1.1\r\nHost: x\r\n\r\n")
    assert b" 500 " in got and b'"message":"internal error"' in got
    assert "a defect" in str(caplog.records[0].exc_info)


def test_an_expectation_that_nobody_meets_is_refused_in_openais_shape(served):
    with closing(served.connect()) as client:
        got = ask(client, b"GET /read HTTP/1.1\r\nHost: x\r\nExpect: something\r\nConnection: close\r\n\r\n")
    assert b" 417 " in got and b'"message":"Unknown Expect: something"' in got


@pytest.mark.parametrize("chunk", [b"zz\r\n", b"5\r\nabcdefgh\r\n"])
def test_a_body_that_is_cut_wrongly_is_the_clients_error(served, chunk):
    with closing(served.connect()) as client:
        start = f"POST /read HTTP/1.1\r\nHost: x\r\nAuthorization: {KEY}\r\nTransfer-Encoding: chunked\r\n\r\n"
        assert b" 400 " in ask(client, start.encode() + chunk)


def test_limits_leave_descriptors_free(monkeypatch):
    monkeypatch.setattr("resource.getrlimit", lambda _: (1000, 4096))
    limits = limits_of_process(spare=100)
    assert 500 < limits.connections < 900
    assert limits.strangers_per_source == limits.connections // 2
    assert limits_of_process(spare=100, descriptors_each=2).connections <= limits.connections // 2 + 2
    monkeypatch.setattr("resource.getrlimit", lambda _: (-1, -1))
    assert limits_of_process().connections == 65536


def test_a_body_that_comes_at_once_behind_its_head_is_none(served):
    """Several pieces are read before the request gets its turn, with uvloop and on a fast connection."""
    with closing(served.connect()) as client:
        assert ask(client, head(length=2) + b"ab").endswith(b"ab")
        eventually(lambda: served.counts()["idle"] == 1, "the answer is out")

        async def read() -> bool:
            [connection] = served.guard._idle
            connection.data_received(head(length=10_000_000))
            for _ in range(100):
                connection.data_received(b"x" * 100_000)
            return bool(connection.transport.is_closing())

        assert not served.loop.run(read())
        assert answer(client).startswith(b"HTTP/1.1 413")
