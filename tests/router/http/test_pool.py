"""The connections to a worker, before an upstream that says byte for byte what the test wants."""

import asyncio
import errno
import os
import socket
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slurminfer.core.net.acceptor import Acceptor
from slurminfer.core.net.identity import client_context, make_identity, server_context
from slurminfer.core.net.sockets import listening_socket
from slurminfer.router.http import pool as pools
from slurminfer.router.http.messages import ConnectError
from slurminfer.router.http.pool import SocketPool, TlsPool

from ...support.loop import Loop
from ...support.waiting import eventually

HEAD = b"POST /v1/completions HTTP/1.1\r\nHost: worker\r\nContent-Length: 2\r\n"
OK = b"HTTP/1.1 200 OK\r\n"


class Upstream(asyncio.Protocol):
    """One accepted connection of the worker."""

    def __init__(self, worker: "Worker") -> None:
        self._worker = worker

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: Any = transport
        self._worker.connections.append(self)

    def data_received(self, data: bytes) -> None:
        self._worker.got += data
        self._worker.when_asked(self)

    def connection_lost(self, error: Exception | None) -> None:
        self._worker.lost += 1


class Worker:
    """What listens at the other end. `when_asked` is called for what comes, with the connection that it came by."""

    def __init__(self) -> None:
        self.connections: list[Upstream] = []
        self.got, self.lost = b"", 0
        self.when_asked: Callable[[Upstream], object] = lambda connection: None
        self.server: Any = None


class Sink:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.status, self.body = 0, b""
        self.headers: list[tuple[bytes, bytes]] = []
        self.end: str | Exception | None = None

    def on_head(self, status, headers):
        assert self.status == 0 and self.end is None
        self.status, self.headers = status, headers

    def on_data(self, data):
        assert self.status and self.end is None and data
        self.body += data

    def on_end(self):
        assert self.status and self.end is None
        self.end = "end"

    def on_lost(self, error):
        assert self.end is None
        self.end = error


class Path_:
    """A worker and a pool of connections to it."""

    def __init__(self, loop: Loop, folder: Path, tls: bool) -> None:
        self.loop, self.worker, self.now = loop, Worker(), 0.0
        self.socket, self._identity = folder / "worker.sock", folder / "identity"
        loop.run(self._start(tls))

    async def _start(self, tls: bool) -> None:
        loop = asyncio.get_running_loop()
        if not tls:
            self.worker.server = await loop.create_unix_server(lambda: Upstream(self.worker), str(self.socket))
            self.pool: Any = SocketPool(self.socket, clock=lambda: self.now)
            return
        make_identity(self._identity, "worker")
        listener = listening_socket("127.0.0.1")
        self.worker.server = Acceptor(listener, server_context(self._identity), lambda: Upstream(self.worker))
        self.worker.server.start()
        context = client_context(self._identity)
        host, port = listener.getsockname()
        self.pool = TlsPool(host, port, context, clock=lambda: self.now)

    def send(self, head: bytes = HEAD, body: bytes = b"{}") -> tuple[Sink, Any]:
        sink = Sink()
        return sink, self.loop.run(self.pool.send(head, body, sink))

    def ask(self, *pieces: bytes, head: bytes = HEAD, close: bool = False) -> Sink:
        """What the sink was told of an answer that comes in these pieces."""

        def answer(connection: Upstream) -> None:
            for piece in pieces:
                connection.transport.write(piece)
            if close:
                connection.transport.close()

        self.worker.when_asked = answer
        sink, _ = self.send(head)
        eventually(lambda: sink.end is not None, "the answer ends")
        return sink

    def call(self, what: Callable[[], Any]) -> Any:
        async def run() -> Any:
            return what()

        return self.loop.run(run())

    def stop(self) -> None:
        def stop() -> None:
            self.pool.close()
            self.worker.server.close()
            for connection in self.worker.connections:
                connection.transport.abort()

        self.call(stop)


@pytest.fixture(params=["unix", "tls"])
def way(fast: Loop, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path_]:
    way = Path_(fast, tmp_path, request.param == "tls")
    yield way
    way.stop()


@pytest.fixture
def unix(fast: Loop, tmp_path: Path) -> Iterator[Path_]:
    way = Path_(fast, tmp_path, False)
    yield way
    way.stop()


def test_a_request_and_its_answer(way):
    sink = way.ask(OK + b"Content-Length: 3\r\nX-A:  b \r\n\r\nabc")
    assert (sink.status, sink.body, sink.end) == (200, b"abc", "end")
    assert sink.headers == [(b"content-length", b"3"), (b"x-a", b"b")]
    assert way.worker.got == HEAD + b"\r\n{}"


def test_a_connection_is_used_again(way):
    for _ in range(3):
        assert way.ask(OK + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n").body == b"abc"
    assert len(way.worker.connections) == 1
    assert way.call(lambda: way.pool.idle) == 1


def test_a_request_is_sent_at_once_on_a_free_connection(way):
    answer = OK + b"Content-Length: 3\r\n\r\nabc"
    sink = Sink()
    assert way.call(lambda: way.pool.try_send(HEAD, b"{}", sink)) is None
    way.ask(answer)
    assert way.call(lambda: way.pool.try_send(HEAD, b"{}", sink)) is not None
    eventually(lambda: sink.end == "end", "it is answered")
    assert (sink.status, sink.body, len(way.worker.connections)) == (200, b"abc", 1)


def test_a_large_body_is_sent_whole(way):
    body = os.urandom(3_000_000)
    way.worker.when_asked = lambda connection: (
        len(way.worker.got) == len(HEAD) + 2 + len(body)
        and connection.transport.write(OK + b"Content-Length: 0\r\n\r\n")
    )
    sink, _ = way.send(body=body)
    eventually(lambda: sink.end == "end", "it is answered")
    assert way.worker.got == HEAD + b"\r\n" + body


@pytest.mark.parametrize(
    ("answer", "status", "body"),
    [
        (OK + b"Content-Length: 0\r\n\r\n", 200, b""),
        (b"HTTP/1.1 204 No Content\r\n\r\n", 204, b""),
        (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", 304, b""),
        (
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 X\r\nLink: a\r\n\r\n" + OK + b"Content-Length: 1\r\n\r\na",
            200,
            b"a",
        ),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n1;x\r\na\r\n02\r\nbc\r\n0\r\nTrailer: x\r\n\r\n", 200, b"abc"),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\na", 200, b"a"),
        (b"HTTP/1.1 503 Busy\r\nConnection: close\r\nContent-Length: 1\r\n\r\na", 503, b"a"),
    ],
)
def test_answers_of_every_form_wherever_they_are_cut(unix, answer, status, body):
    sinks = [unix.ask(answer)] + [unix.ask(answer[:at], answer[at:]) for at in range(1, len(answer), 5)]
    sinks.append(unix.ask(*(answer[at : at + 1] for at in range(len(answer)))))
    for sink in sinks:
        assert (sink.status, sink.body, sink.end) == (status, body, "end")
        assert not [name for name, _ in sink.headers if name in (b"trailer", b"link")]


def test_an_answer_to_head_has_no_body(unix):
    sink = unix.ask(OK + b"Content-Length: 5\r\n\r\n", head=b"HEAD / HTTP/1.1\r\nHost: worker\r\n")
    assert (sink.status, sink.body, sink.end) == (200, b"", "end")


@pytest.mark.parametrize("head", [b"\r\n", b"Transfer-Encoding: gzip\r\n\r\n"])
def test_a_body_without_a_length_ends_with_the_connection(way, head):
    sink = way.ask(OK + head + b"abc", close=True)
    assert (sink.body, sink.end) == (b"abc", "end")
    assert way.call(lambda: way.pool.idle) == 0


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200",
        OK + b"Content-Length: 5\r\n\r\n",
        OK + b"Content-Length: 5\r\n\r\nabc",
        OK + b"Transfer-Encoding: chunked\r\n\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n",
    ],
)
def test_an_answer_that_breaks_off_is_lost_and_never_complete(way, answer):
    assert isinstance(way.ask(answer, close=True).end, Exception)


@pytest.mark.parametrize(
    "answer",
    [
        b"garbage\r\n\r\n",
        b"\x15\x03\x03\x00\x02\x02\x46" * 5,
        b"HTTP/1.1 200 OK\nContent-Length: 0\n\n",
        OK + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\na",
        OK + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\na",
        OK + b"Content-Length: x\r\n\r\na",
        OK + b"X: a\r\n folded\r\n\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\n1\r\nab\r\n",
        OK + b"X: " + b"a" * 100_000 + b"\r\n\r\n",
        OK + b"X: " + b"a" * 100_000 + b"\r\nContent-Length: 1\r\n\r\na",
        OK + b"X: a\r\n" * 20_000,
        b"HTTP/1.1 100 Continue\r\n\r\n" * 20_000,
        OK + b"Transfer-Encoding: chunked\r\n\r\n1;" + b"x" * 200_000,
        b"HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\nabc",
    ],
)
def test_what_is_no_answer_is_lost_and_the_connection_closed(unix, answer):
    sink = unix.ask(answer)
    assert isinstance(sink.end, Exception) and len(str(sink.end)) < 300
    eventually(lambda: unix.worker.lost == 1, "the connection is closed")


def test_a_connection_that_says_more_than_it_was_asked_is_not_used_again(unix):
    answer = OK + b"Content-Length: 1\r\n\r\na"
    assert unix.ask(answer + answer).body == b"a"
    eventually(lambda: unix.worker.lost == 1, "it is closed")
    assert unix.ask(answer).body == b"a"
    unix.worker.connections[-1].transport.write(answer)
    eventually(lambda: unix.worker.lost == 2, "it is closed")
    assert unix.ask(OK + b"Content-Length: 1\r\n\r\nb").body == b"b"


def test_a_reused_connection_that_ends_before_any_answer_is_replaced_once(way):
    fine = OK + b"Content-Length: 1\r\n\r\na"
    assert way.ask(fine).end == "end"
    first = way.worker.connections[0]

    def asked(connection):
        if connection is first:
            connection.transport.close()
        else:
            connection.transport.write(fine)

    way.worker.when_asked = asked
    sink, _ = way.send()
    eventually(lambda: sink.end, "it is answered")
    assert (sink.body, sink.end) == (b"a", "end")
    assert way.worker.got == 3 * (HEAD + b"\r\n{}")


def test_a_request_is_not_sent_twice_in_other_cases(way):
    way.worker.when_asked = lambda connection: connection.transport.close()
    sink, _ = way.send()  # a new connection
    eventually(lambda: sink.end, "it is lost")
    assert isinstance(sink.end, Exception) and len(way.worker.connections) == 1
    assert way.ask(OK + b"Content-Length: 1\r\n\r\na").end == "end"
    sink = way.ask(b"H", close=True)  # a first byte
    assert isinstance(sink.end, Exception) and len(way.worker.connections) == 2
    assert way.worker.got == 3 * (HEAD + b"\r\n{}")


def test_a_second_try_that_finds_no_worker_is_lost(unix):
    assert unix.ask(OK + b"Content-Length: 0\r\n\r\n").end == "end"
    unix.call(unix.worker.server.close)
    sink = unix.ask(close=True)
    assert isinstance(sink.end, ConnectError)


@pytest.mark.parametrize("seconds", [2.0, 60.0])
def test_an_idle_connection_is_kept_for_its_time_only(fast, tmp_path, seconds):
    way = Path_(fast, tmp_path, seconds == 60.0)
    fine = OK + b"Content-Length: 0\r\n\r\n"
    for now, made in ((0.0, 1), (seconds - 0.1, 1), (2 * seconds - 0.1, 2)):
        way.now = now
        way.ask(fine)
        assert len(way.worker.connections) == made
    way.now += seconds
    way.call(way.pool.sweep)
    assert way.call(lambda: way.pool.idle) == 0
    eventually(lambda: way.worker.lost == 2, "both are closed")
    way.stop()


def test_abort_closes_at_once_and_the_sink_hears_nothing_more(way):
    way.worker.when_asked = lambda connection: connection.transport.write(
        OK + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"
    )
    sink, flow = way.send()
    eventually(lambda: sink.body == b"abc", "it has begun")
    way.call(flow.abort)
    eventually(lambda: way.worker.lost == 1, "the connection is closed")
    assert sink.end is None and way.call(lambda: way.pool.idle) == 0


def test_a_paused_flow_stops_the_worker_and_a_resumed_one_loses_nothing(way):
    body = bytes(6_000_000)
    sink, flow = way.send()
    way.call(flow.pause)
    way.call(lambda: way.worker.connections[0].transport.write(OK + b"Content-Length: %d\r\n\r\n" % len(body)))
    way.call(lambda: way.worker.connections[0].transport.write(body))
    assert len(sink.body) < len(body) / 2
    way.call(flow.resume)
    eventually(lambda: sink.end, "it ends")
    assert sink.body == body and sink.end == "end"
    assert way.ask(OK + b"Content-Length: 1\r\n\r\na").body == b"a"


def test_a_paused_flow_that_ends_leaves_a_connection_that_is_read(unix):
    flows: list[Any] = []

    class Pausing(Sink):
        def on_data(self, data):
            super().on_data(data)
            flows[0].pause()

    sink = Pausing()
    unix.worker.when_asked = lambda connection: unix.loop.soon(
        lambda: connection.transport.write(OK + b"Content-Length: 1\r\n\r\na")
    )

    async def send():
        flows.append(await unix.pool.send(HEAD, b"{}", sink))

    unix.loop.run(send())
    eventually(lambda: sink.end, "it ends")
    assert unix.ask(OK + b"Content-Length: 1\r\n\r\nb").body == b"b"
    assert len(unix.worker.connections) == 1


def test_nobody_there_is_said_at_once(fast, tmp_path):
    async def send(pool):
        with pytest.raises(ConnectError) as refused:
            await pool.send(HEAD, b"", Sink())
        return refused.value

    async def pool():
        return SocketPool(tmp_path / "missing")

    error = fast.run(send(fast.run(pool())))
    assert not error.own_fault and "No such file" in str(error)


@pytest.mark.parametrize(("number", "own"), [(errno.EMFILE, True), (errno.ENFILE, True), (errno.ECONNREFUSED, False)])
def test_own_faults_are_told_apart(unix, monkeypatch, number, own):
    async def connect():
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(unix.pool, "_connect", connect)
    with pytest.raises(ConnectError) as refused:
        unix.send()
    assert refused.value.own_fault is own


def test_a_worker_that_does_not_accept_is_given_up_in_time(fast, tmp_path, monkeypatch):
    """Its backlog is full: a connection to a Unix socket fails at once then, and is tried again."""
    monkeypatch.setattr(SocketPool, "connect_timeout_s", 0.1)
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as waiting:
        listener.bind(str(tmp_path / "s"))
        listener.listen(0)
        waiting.connect(str(tmp_path / "s"))

        async def send():
            await SocketPool(tmp_path / "s").send(HEAD, b"", Sink())

        with pytest.raises(ConnectError, match=r"no connection within 0\.1 s"):
            fast.run(send())


def test_a_socket_of_somebody_else_gets_no_request(unix, monkeypatch):
    monkeypatch.setattr(pools, "peer_uid", lambda sock: os.geteuid() + 1)
    with pytest.raises(ConnectError, match="not of this one"):
        unix.send()
    assert unix.worker.got == b""


def test_a_gate_with_another_identity_gets_no_request(fast, tmp_path):
    way = Path_(fast, tmp_path, True)
    make_identity(tmp_path / "other", "other")

    async def other():
        host, port = way.pool._address
        return TlsPool(host, port, client_context(tmp_path / "other"))

    way.pool = fast.run(other())
    with pytest.raises(ConnectError):
        way.send()
    assert way.worker.got == b""
    way.stop()


def test_a_closed_pool_keeps_nothing(way):
    sink, _ = way.send()
    way.call(way.pool.close)
    way.call(lambda: way.worker.connections[0].transport.write(OK + b"Content-Length: 0\r\n\r\n"))
    eventually(lambda: sink.end == "end", "what was in flight ends well")
    eventually(lambda: way.worker.lost == 1, "the connection is closed")


ANSWER = OK + b"Transfer-Encoding: chunked\r\nX: y\r\n\r\n1;x\r\na\r\n000a\r\n0123456789\r\n0\r\nT: v\r\n\r\n"


@pytest.fixture(scope="module")
def lasting(fast, tmp_path_factory):
    way = Path_(fast, tmp_path_factory.mktemp("w"), False)
    yield way
    way.stop()


@settings(max_examples=60, deadline=None)
@given(cuts=st.lists(st.integers(0, len(ANSWER)), max_size=12))
def test_wherever_an_answer_is_cut_it_is_the_same(lasting, cuts):
    at = [0, *sorted(cuts), len(ANSWER)]
    sink = lasting.ask(*(ANSWER[a:b] for a, b in pairwise(at) if a < b))
    assert (sink.status, sink.body, sink.end) == (200, b"a0123456789", "end")


@settings(max_examples=60, deadline=None)
@given(end=st.integers(0, len(ANSWER) - 1))
def test_a_beginning_of_an_answer_is_never_complete(lasting, end):
    assert isinstance(lasting.ask(ANSWER[:end], close=True).end, Exception)
