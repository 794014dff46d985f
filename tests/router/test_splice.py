"""Streams that a test writes byte by byte: cut, broken or unusual ones, and clients that do not read."""

import asyncio
import itertools
import json
import socket
import threading
import time
from contextlib import asynccontextmanager, suppress
from typing import Any

import aiohttp
import pytest
import uvloop

from slurminfer.core.net.identity import make_identity, server_context
from slurminfer.core.records import WorkerRecord, WorkerState
from slurminfer.core.rundir import RunDirectory
from slurminfer.router.relay.connection import Connection
from slurminfer.router.relay.splice import Chunks, SplicedResponse

from ..support.loop import Loop
from .conftest import Deployment, private_folder

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nTransfer-Encoding: chunked\r\n\r\n"
LAST = b"0\r\n\r\n"
ONE, TWO = b'data: {"n":1}\n\n', b'data: {"n":2}\n\n'


def chunk(data):
    return b"%x\r\n%b\r\n" % (len(data), data)


# Two events in three chunks, none of which ends where an event does but the last.
STREAM = HEAD + chunk(ONE[:6]) + chunk(ONE[6:] + TWO[:9]) + chunk(TWO[9:]) + LAST


class Worker:
    """A worker on bare sockets. `say` answers a POST; what it returns says whether the connection stays."""

    def __init__(self, run: RunDirectory, tls: bool = False):
        self.socket, self._tls = private_folder(run) / "s", None
        if tls:
            identity = run.worker_identity_path("raw-0", 0)
            make_identity(identity, "raw")
            self._tls = server_context(identity)
            self._server = socket.create_server(("127.0.0.1", 0))
        else:
            self._server = socket.socket(socket.AF_UNIX)
            self._server.bind(str(self.socket))
            self._server.listen()
        self.asked: list[Any] = []  # the connection of each POST
        self.say = lambda connection: False
        threading.Thread(target=self._accept, daemon=True).start()

    def record(self):
        there: dict[str, Any] = {"socket": str(self.socket)}
        if self._tls:
            there = {"url": "https://{}:{}".format(*self._server.getsockname())}
        return WorkerRecord(
            id="raw-0", pool="raw", engine="native", model="stub-model", state=WorkerState.READY, job="1", epoch=0,
            pid=1, host=socket.gethostname(), updated_at=time.time(), key="key", capacity=4, **there,
        )  # fmt: skip

    def says(self, *pieces, stays=True):
        def say(connection):
            for piece in pieces:
                connection.sendall(piece)
                time.sleep(0.001)  # so that it arrives as a piece
            return stays

        self.say = say

    def close(self):
        self._server.close()

    def _accept(self):
        while True:
            try:
                connection, _ = self._server.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=[connection], daemon=True).start()

    def _serve(self, connection):
        if self._tls:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection = self._tls.wrap_socket(connection, server_side=True)
        with connection, connection.makefile("rb") as lines:
            while line := lines.readline():
                headers = dict(header.lower().split(b": ") for header in iter(lines.readline, b"\r\n"))
                lines.read(int(headers.get(b"content-length", 0)))
                if line.startswith(b"GET"):
                    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
                    continue
                self.asked.append(connection)
                if not self.say(connection):
                    break
            if self._tls:
                with suppress(OSError):
                    connection.unwrap()  # as the gate ends a connection


@pytest.fixture
def directory(tmp_path):
    directory = RunDirectory(tmp_path / "run")
    directory.create()
    return directory


@pytest.fixture
def worker(request, directory):
    """Behind TLS where the test's router is to reach it so."""
    worker = Worker(directory, tls="tls" in request.node.name)
    yield worker
    worker.close()


@pytest.fixture(params=["asyncio", "uvloop", "asyncio and tls", "uvloop and tls"])
def routed(request, directory, worker, caplog):
    """A router before `worker`, on either event loop, by a Unix socket or TLS."""
    loop = Loop(uvloop.new_event_loop() if "uvloop" in request.param else asyncio.new_event_loop())
    deployment = Deployment(loop, directory.path)
    deployment.run.write_worker(worker.record())
    deployment.start_router()
    yield deployment
    deployment.close()
    loop.close()
    assert not [record for record in caplog.get_records("call") if record.levelname == "ERROR"]


@asynccontextmanager
async def asked(worker):
    """The beginning of the answer to a POST."""
    connection = Connection(aiohttp.UnixConnector(str(worker.socket)), "http://worker", "key")
    try:
        async with await connection.request("POST", "/", data=b"{}") as response:
            assert isinstance(response, SplicedResponse)
            yield response
    finally:
        await connection.close()


as_shipped = pytest.mark.parametrize("routed", ["uvloop"], indirect=True)


def asked_by_hand(routed, version="1.1"):
    """A client's socket that has asked and read nothing."""
    body = b'{"model": "stub-model", "stream": true}'
    head = f"POST /v1/completions HTTP/{version}\r\nHost: x\r\nAuthorization: Bearer {routed.run.key()}\r\n"
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
    client.settimeout(20)
    host, port = routed.url.removeprefix("http://").split(":")
    client.connect((host, int(port)))
    client.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    return client


def read_all(client):
    return b"".join(iter(lambda: client.recv(1 << 20), b""))


CHUNKED = chunk(b"a") + b"00C;x=y \r\n" + b"bc" * 6 + b"\r\n"


def test_chunks_may_be_cut_anywhere():
    data = CHUNKED + b"0;x\r\nX-Trailer: 1\r\n\r\n"
    for first, second in itertools.combinations(range(1, len(data)), 2):
        chunks, content, rest = Chunks(), b"", b""
        for piece in (data[:first], data[first:second], data[second:]):
            if chunks.rest is None:
                content += chunks.feed(piece)
                rest = chunks.rest or b""
            else:
                rest += piece
        assert (content, rest) == (b"a" + b"bc" * 6, data[len(CHUNKED) :])


@pytest.mark.parametrize(
    "end",
    [
        b"0_3\r\n",
        b"+3\r\n",
        b" 3\r\n",
        b"3\n",
        b"\r\n",
        b"0\n",
        b"x\r\n",
        b"123456789\r\n",
        b"3\r\nabcd\r\n",
        b"1" * 2000,
    ],
)
def test_what_are_no_chunks_is_broken(end):
    chunks = Chunks()
    assert chunks.feed(CHUNKED + end) in (b"a" + b"bc" * 6, b"a" + b"bc" * 6 + b"abc")
    assert chunks.broken and chunks.rest is None


def test_content_comes_by_the_splice_and_its_end_by_aiohttp(worker):
    """Without this test, a change of aiohttp could switch the splice off, and only benchmarks would tell."""

    async def ask():
        async with asked(worker) as response:
            found = [await response.splice.read(), await response.splice.read()]
            return found, await response.content.readany()

    worker.says(HEAD, chunk(ONE), LAST)
    assert asyncio.run(ask()) == ([ONE, b""], b"")


def test_a_worker_may_close_its_connection_before_the_end_was_read(worker):
    async def ask():
        async with asked(worker) as response:
            await asyncio.sleep(0.1)
            return await response.splice.read(), await response.splice.read(), await response.content.readany()

    worker.says(STREAM, stays=False)
    for run in (asyncio.run, uvloop.run):
        assert run(ask()) == (ONE + TWO, b"", b"")


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_what_is_poured_keeps_its_order(worker, run):
    async def ask():
        async with asked(worker) as response:
            splice, poured = response.splice, []

            def write(data):
                poured.append(data)
                asyncio.get_running_loop().call_soon(splice.data_received, chunk(TWO))  # before the task goes on
                return False

            await asyncio.sleep(0.1)
            await splice.pour(write)
            assert not poured, "what has come before is to be read"
            assert await splice.read() == ONE
            await splice.pour(write)
            assert poured == [ONE], "it said that this was enough"
            return await splice.read()

    def say(connection):
        connection.sendall(HEAD + chunk(ONE))
        time.sleep(0.3)
        connection.sendall(chunk(ONE))
        time.sleep(0.3)

    worker.say = say
    assert run(ask()) == TWO


def test_a_stream_may_be_cut_anywhere(routed, worker):
    for cut in range(1, len(STREAM)):
        worker.says(STREAM[:cut], STREAM[cut:])
        assert routed.chat(stream=True).content == ONE + TWO, cut


@pytest.mark.parametrize("head", [HEAD, HEAD.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")])
def test_a_worker_may_close_its_connection_after_the_last_chunk(routed, worker, head):
    worker.says(STREAM.replace(HEAD, head), stays=False)
    assert routed.chat(stream=True).content == ONE + TWO


def test_a_stream_without_chunks_passes(routed, worker):
    worker.says(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n", ONE, TWO, stays=False)
    assert routed.chat(stream=True).content == ONE + TWO


def test_an_event_without_its_blank_line_passes_at_a_clean_end(routed, worker):
    worker.says(HEAD, chunk(ONE), chunk(TWO[:-1]), LAST)
    assert routed.chat(stream=True).content == ONE + TWO[:-1]


def test_a_stream_without_events_is_empty(routed, worker):
    worker.says(HEAD, LAST)
    answer = routed.chat(stream=True)
    assert (answer.status_code, answer.content) == (200, b"")


def test_connections_are_used_again_after_streams_with_trailers_and_other_answers(routed, worker):
    answers = itertools.cycle(
        [
            STREAM.removesuffix(b"\r\n") + b"X-Trailer: 1\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}",
            STREAM,
        ]
    )
    worker.say = lambda connection: connection.sendall(next(answers)) is None
    assert [routed.chat(stream=True).content for _ in range(12)] == [ONE + TWO, b"{}", ONE + TWO] * 4
    assert len(set(worker.asked)) <= 2, "one, and another while a probe had it"


def test_an_answer_that_has_no_body_is_not_waited_for(routed, worker):
    worker.says(HEAD.replace(b"200 OK", b"204 No Content"))
    assert routed.chat(stream=True).status_code == 204


def test_a_head_without_an_end_is_not_waited_for(routed, worker):
    worker.says(HEAD[:-2] + b"X-Long: " + b"x" * 100_000)
    assert routed.chat(stream=True).status_code == 503


def test_a_body_larger_than_sockets_hold_arrives(routed, worker):
    worker.says(STREAM)
    assert routed.chat(stream=True, prompt="x" * 40_000_000).content == ONE + TWO


def test_unusual_chunks_pass(routed, worker):
    worker.says(HEAD, chunk(ONE), b"%X;name=value\r\n%b\r\n" % (len(TWO), TWO), chunk(ONE), LAST)
    assert routed.chat(stream=True).content == ONE + TWO + ONE


DEATHS = [b"", b"f", b"f\r\n", chunk(TWO)[:9], chunk(TWO)[:-1], b"0\r\n"]
NO_CHUNKS = [b"f\r\n" + TWO + b"??", b"?\r\n"]


@as_shipped
@pytest.mark.parametrize(("end", "stays"), [(end, False) for end in DEATHS] + [(end, True) for end in NO_CHUNKS])
def test_a_stream_that_breaks_off_anywhere_ends_with_an_error_event(routed, worker, end, stays):
    worker.says(HEAD, chunk(ONE), end, stays=stays)
    *events, error = routed.chat(stream=True).content.removesuffix(b"\n\n").split(b"\n\n")
    assert [event + b"\n\n" for event in events] in ([ONE], [ONE, TWO])
    assert "broke off" in json.loads(error.removeprefix(b"data: "))["error"]["message"]


def test_a_client_of_http_1_0_gets_events_without_chunks(routed, worker):
    worker.says(HEAD, chunk(ONE), chunk(TWO), LAST)
    with asked_by_hand(routed, version="1.0") as client:
        head, _, body = read_all(client).partition(b"\r\n\r\n")
    assert b"chunked" not in head.lower()
    assert body == ONE + TWO


class Flood:
    """Says many events, and counts them."""

    def __init__(self, events=6400, size=10_000):  # far more than sockets hold
        self.events, self.size = events, size
        self.said, self.error = 0, None

    def __call__(self, connection):
        connection.sendall(HEAD)
        try:
            while self.said < self.events:
                connection.sendall(chunk(self.event(self.said)))
                self.said += 1
            connection.sendall(LAST)
        except OSError as error:
            self.error = error
        return False

    def event(self, number):
        return b"data: %0*d\n\n" % (self.size, number)

    def stands_still(self):
        before = self.said
        time.sleep(0.3)
        return 0 < before == self.said


def test_a_client_that_does_not_read_stops_its_worker_and_then_gets_everything(routed, worker, eventually):
    worker.say = flood = Flood()
    with routed.http.stream("POST", "/v1/completions", json={"model": "stub-model"}) as answer:
        eventually(flood.stands_still)
        assert flood.said < flood.events
        assert routed.http.get("/health").status_code == 200, "others do not wait for it"
        found = bytearray()
        for data in answer.iter_raw():
            found += data
            time.sleep(0.0002)  # so that there is more to wait for
    assert found == b"".join(map(flood.event, range(flood.events)))


def test_a_client_that_hangs_up_without_having_read_stops_its_worker(routed, worker, eventually):
    worker.say = flood = Flood()
    with asked_by_hand(routed):
        eventually(flood.stands_still)
    eventually(lambda: flood.error)
    eventually(lambda: routed.workers()["raw-0"]["in_flight"] == 0)
    assert routed.workers()["raw-0"]["healthy"]


def test_clients_that_hang_up_while_events_come(routed, worker, eventually):
    for _ in range(20):
        worker.say = flood = Flood(events=10**9, size=10)
        with asked_by_hand(routed) as client:
            for _ in range(20):
                assert client.recv(1 << 16)
        eventually(lambda flood=flood: flood.error)
