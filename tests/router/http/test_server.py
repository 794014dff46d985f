"""The server for clients: what is answered, kept open, bounded and given up. On bare sockets."""

import asyncio
import errno
import gzip
import json
import tracemalloc
import zlib
from contextlib import ExitStack, closing

import pytest

from slurminfer.core.net.connection_guard import ConnectionLimits
from slurminfer.router.http.bodies import Bodies, BodyLimits, Held
from slurminfer.router.http.connection import Connection
from slurminfer.router.http.messages import Whole
from slurminfer.router.http.state import LINGER_S, UNREAD_S

from ...support.waiting import eventually
from .conftest import LIMITS, answers, head, post, until_closed

CLOSE = "Connection: close"


def only(data):
    [answer] = answers(data)
    return answer


def error_of(data, status):
    got, headers, body = only(data)
    assert got == status, data
    assert headers[b"content-type"] == b"application/json"
    return headers, json.loads(body)["error"]


@pytest.mark.parametrize("unix", [False, True])
def test_a_request_is_answered(serving, unix):
    served = serving(unix)
    status, headers, body = only(served.ask(post(b"hello", CLOSE, "X-Request-Id: mine")))
    assert (status, body) == (200, b"hello")
    assert headers[b"x-from"] == b"worker" and headers[b"x-request-id"] == b"mine"
    assert headers[b"connection"] == b"close" and headers[b"date"].endswith(b"GMT")
    [request] = served.handler.requests
    assert request.head.peer == ("" if unix else "127.0.0.1")
    assert request.head.method == b"POST"


def test_a_request_without_an_id_gets_one(served):
    _, first, _ = only(served.ask(post(b"", CLOSE)))
    _, second, _ = only(served.ask(post(b"", CLOSE, "X-Request-Id: " + "x" * 500)))
    assert len(first[b"x-request-id"]) == len(second[b"x-request-id"]) == 32
    assert first[b"x-request-id"] != second[b"x-request-id"]


def test_a_body_of_unknown_length_goes_in_chunks_and_the_connection_stays(served):
    got = served.ask(post(b"abc", line="POST /parts HTTP/1.1"), post(b"d", CLOSE))
    first, second = answers(got)
    assert first[2] == b"abc" and first[1][b"transfer-encoding"] == b"chunked"
    assert second[2] == b"d" and second[1][b"content-length"] == b"1"


def test_pipelined_requests_are_answered_in_order(served):
    with closing(served.connect()) as client:
        client.sendall(post(b"first", line="POST /wait HTTP/1.1") + post(b"second") + post(b"third", CLOSE))
        eventually(lambda: served.handler.requests, "the first is there")
        assert len(served.handler.requests) == 1
        served.loop.soon(served.handler.go.set)
        assert [body for _, _, body in answers(until_closed(client))] == [b"first", b"second", b"third"]


def test_very_many_pipelined_requests_are_answered_as_far_as_they_are_held(served):
    with closing(served.connect()) as client:
        client.sendall(post(b"0", line="POST /wait HTTP/1.1") + b"".join(post(b"%d" % n) for n in range(1, 400)))
        eventually(lambda: served.handler.requests, "the first is there")
        served.loop.soon(served.handler.go.set)
        got = [int(body) for _, _, body in answers(until_closed(client))]
    assert 100 < len(got) <= 400 and got == list(range(len(got)))


def test_a_client_of_http_1_0_gets_no_chunks(served):
    got = served.ask(post(b"abc", line="POST /parts HTTP/1.0"))
    _, headers, body = only(got)
    assert body == b"abc" and b"transfer-encoding" not in headers and headers[b"connection"] == b"close"


def test_a_client_of_http_1_0_may_keep_its_connection(served):
    first, second = answers(
        served.ask(
            post(b"a", "Connection: keep-alive", line="POST /echo HTTP/1.0"), post(b"b", line="POST /echo HTTP/1.0")
        )
    )
    assert first[1][b"connection"] == b"keep-alive" and second[1][b"connection"] == b"close"


@pytest.mark.parametrize("path", ["/echo", "/parts"])
def test_head_has_no_body(served, path):
    got = served.ask(post(b"abc", CLOSE, line=f"HEAD {path} HTTP/1.1"))
    assert got.partition(b"\r\n\r\n")[2] == b""
    assert (b"Content-Length: 3" in got) == (path == "/echo")


def test_an_answer_without_content_has_no_body(served):
    async def then(request, reply):
        reply.whole(Whole(204, b"ignored"))

    served.handler.then = then
    got = served.ask(post(b"", CLOSE, line="POST /x HTTP/1.1"))
    assert got.startswith(b"HTTP/1.1 204 No Content\r\n") and got.endswith(b"\r\n\r\n")
    assert b"Content-Length" not in got


def test_a_client_that_asks_first_is_told_to_go_on(served):
    with closing(served.connect()) as client:
        client.sendall(head("Content-Length: 3", "Expect: 100-continue", CLOSE))
        assert client.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.sendall(b"abc")
        assert only(until_closed(client))[2] == b"abc"


def test_a_client_that_asks_first_behind_another_request_waits_its_turn(served):
    with closing(served.connect()) as client:
        client.sendall(
            post(b"1", line="POST /wait HTTP/1.1") + head("Content-Length: 3", "Expect: 100-continue", CLOSE)
        )
        eventually(lambda: len(served.handler.heads) == 2, "both heads are there")
        served.loop.soon(served.handler.go.set)
        got = b""
        while b"100 Continue\r\n\r\n" not in got:
            got += client.recv(1000)
        client.sendall(b"abc")
        assert [status for status, _, _ in answers(got + until_closed(client))] == [200, 100, 200]


def test_a_client_that_asks_first_behind_a_last_answer_is_told_nothing(served, caplog):
    async def long_without_length(_, reply):
        reply.begin(200, [])
        reply.write(b"x" * 8_000_000)
        reply.end()

    served.handler.then = long_without_length
    first = post(b"x", "Connection: keep-alive", line="POST /then HTTP/1.0")
    with served.connect() as client:
        client.sendall(first + head("Content-Length: 3", "Expect: 100-continue"))
        got = until_closed(client)
    assert got.endswith(b"x") and not caplog.records


def test_a_client_that_asks_first_and_does_not_wait_is_not_told_to_go_on(served):
    with closing(served.connect()) as client:
        client.sendall(post(b"1", line="POST /wait HTTP/1.1") + post(b"abc", "Expect: 100-continue"))
        eventually(lambda: len(served.handler.heads) == 2, "both heads are there")
        served.loop.soon(served.handler.go.set)
        got = b""
        while not got.endswith(b"\r\n\r\nabc"):  # the id in the head may hold the same letters
            got += client.recv(1000)
        client.sendall(post(b"", CLOSE))
        assert [status for status, _, _ in answers(got + until_closed(client))] == [200, 200, 200]


@pytest.mark.parametrize("lines", [("Content-Length: 9",), ("Content-Length: 9", "Expect: 100-continue")])
def test_a_refusal_by_the_head_asks_for_nothing_of_the_body(served, lines):
    status, headers, body = only(served.ask(head(*lines, key="wrong")))
    assert (status, body) == (401, b"no key") and headers[b"connection"] == b"close"
    assert not served.handler.requests


def test_a_refusal_of_a_request_without_a_body_keeps_the_connection(served):
    first, second = answers(served.ask(head(key="wrong", line="GET / HTTP/1.1"), post(b"", CLOSE)))
    assert (first[0], second[0]) == (401, 200)


def test_a_refusal_arrives_although_the_client_goes_on_sending(served):
    """A socket closed with unread bytes would reset the connection, and the answer be lost."""
    with closing(served.connect()) as client:
        client.sendall(head("Content-Length: 900000", key="wrong"))
        client.sendall(bytes(900_000))
        assert only(until_closed(client))[0] == 401


def test_a_client_that_never_stops_sending_what_nobody_wants_is_cut(served):
    with closing(served.connect()) as client:
        client.sendall(head("Content-Length: 9000000", key="wrong"))
        with pytest.raises(ConnectionError):
            for _ in range(9000):
                client.sendall(bytes(1000))


def test_a_client_that_ignores_the_end_is_cut_in_time(served, fast):
    with closing(served.connect()) as client:
        client.sendall(head("Content-Length: 9", key="wrong"))
        assert only(until_closed(client))[0] == 401
        assert served.call(lambda: served.server.connections) == 1
        served.tick(LINGER_S)
        eventually(lambda: served.call(lambda: served.server.connections) == 0, "it is cut")


def test_the_body_is_decompressed(served):
    for encoding, packed in (
        ("gzip", gzip.compress(b"text")),
        ("zstd", bytes.fromhex("28b52ffd200421000074657874")),
        ("deflate", zlib.compress(b"text")),
        ("identity", b"text"),
    ):
        assert only(served.ask(post(packed, f"Content-Encoding: {encoding}", CLOSE)))[2] == b"text"


@pytest.mark.parametrize(
    ("encoding", "status"), [("gzip", 400), ("deflate", 400), ("zstd", 400), ("br", 415), ("gzip, gzip", 415)]
)
def test_a_body_that_is_not_what_its_head_says_is_the_clients_error(served, encoding, status):
    _, error = error_of(served.ask(post(b"abcd", f"Content-Encoding: {encoding}", CLOSE)), status)
    assert error["type"] == "invalid_request_error"


def test_a_bomb_is_refused(serving):
    served = serving(bodies=BodyLimits(each=10_000))
    error_of(served.ask(post(gzip.compress(bytes(10_001)), "Content-Encoding: gzip", CLOSE)), 413)
    assert served.call(lambda: served.server.held_bytes) == 0


def test_a_body_announced_as_too_large_is_refused_unread(serving):
    served = serving(bodies=BodyLimits(each=1000))
    headers, error = error_of(served.ask(head("Content-Length: 1001")), 413)
    assert headers[b"connection"] == b"close" and "1001" in error["message"]


def test_a_chunked_body_is_cut_at_its_bound(serving):
    served = serving(bodies=BodyLimits(each=1000))
    error_of(served.ask(head("Transfer-Encoding: chunked"), b"3e8\r\n" + bytes(1000) + b"\r\n1\r\n1\r\n"), 413)
    assert served.call(lambda: served.server.held_bytes) == 0


def test_bodies_beyond_what_may_be_held_together_are_refused_for_now(serving):
    served = serving(bodies=BodyLimits(together=10_000))
    with closing(served.connect()) as first:
        first.sendall(head("Content-Length: 9000") + bytes(7000))
        eventually(lambda: served.call(lambda: served.server.held_bytes) == 7000, "it is held")
        headers, _ = error_of(served.ask(head("Content-Length: 5000")), 503)
        assert int(headers[b"retry-after"]) > 0
        headers, _ = error_of(served.ask(head("Transfer-Encoding: chunked"), b"1388\r\n" + bytes(5000)), 503)
        assert int(headers[b"retry-after"]) > 0
        assert only(served.ask(post(bytes(1000), CLOSE)))[0] == 200
    eventually(lambda: served.call(lambda: served.server.held_bytes) == 0, "nothing is held")


def test_a_tenant_with_many_bodies_leaves_room_for_others(serving):
    served = serving(bodies=BodyLimits(each=9000, together=10_000))
    with closing(served.connect()) as first, closing(served.connect()) as second:
        first.sendall(head("Content-Length: 9000") + bytes(4000))
        second.sendall(head("Content-Length: 4000") + bytes(3900))
        eventually(lambda: served.call(lambda: served.server.held_bytes) == 7900, "they are held")
        _, error = error_of(served.ask(post(bytes(200), CLOSE)), 503)
        assert "of your requests" in error["message"]
        assert only(served.ask(post(bytes(200), "X-Tenant: other", CLOSE)))[0] == 200
        first.sendall(bytes(5000))
        error_of(until_closed(first), 503)
        second.sendall(bytes(100))
        assert second.recv(65536).startswith(b"HTTP/1.1 200 ")
    assert only(served.ask(post(bytes(9000), CLOSE)))[0] == 200, "one body may take nearly everything"
    assert served.call(lambda: served.server.held_bytes) == 0


def test_a_body_in_tiny_chunks_takes_no_more_memory_than_it_has_bytes():
    held = Held(Bodies(BodyLimits()), "me")
    tracemalloc.start()
    for number in range(100_000):
        held.add(b"%02d" % (number % 100))
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert size < 1.3 * held.size
    held.add(bytes(5000))
    held.add(b"z")
    assert held.joined() == b"".join(b"%02d" % number for number in range(100)) * 1000 + bytes(5000) + b"z"


def test_a_body_that_stops_coming_is_given_up_after_its_time(served):
    with closing(served.connect()) as client:
        client.sendall(head("Content-Length: 100") + b"a")
        eventually(lambda: served.call(lambda: served.server.held_bytes) == 1, "some is there")
        served.tick(59)
        client.sendall(b"b")
        eventually(lambda: served.call(lambda: served.server.held_bytes) == 2, "more is there")
        served.tick(59)
        assert served.call(lambda: served.server.held_bytes) == 2
        served.tick()
        error_of(until_closed(client), 408)
    assert served.call(lambda: served.server.held_bytes) == 0


@pytest.mark.parametrize("unix", [False, True])
def test_a_client_that_hangs_up_ends_its_handler(serving, unix):
    served = serving(unix)
    client = served.connect()
    client.sendall(post(b"1", line="POST /wait HTTP/1.1") + post(b"2"))
    eventually(lambda: served.handler.requests, "it is being answered")
    client.close()
    eventually(lambda: served.handler.cancelled == 1, "the handler is cancelled")
    eventually(lambda: served.call(lambda: served.server.held_bytes) == 0, "nothing is held")
    assert len(served.handler.requests) == 1


def test_a_defect_is_answered_without_its_details(served, caplog):
    headers, error = error_of(served.ask(post(b"secret", line="POST /raise HTTP/1.1")), 500)
    assert error["message"] == "internal error" and error["type"] == "server_error"
    assert headers[b"connection"] == b"close"
    assert "a defect" in caplog.text and "secret" not in caplog.text


def test_no_answer_is_an_error_too(served):
    error_of(served.ask(post(b"", line="POST /silent HTTP/1.1")), 500)


def test_an_answer_shorter_than_announced_breaks_the_connection(served):
    got = served.ask(post(b"abc", line="POST /short HTTP/1.1"))
    with pytest.raises(AssertionError):
        answers(got + b"\r\n\r\n" if b"\r\n\r\n" not in got else got)


def test_a_header_with_a_line_break_does_not_get_out(served):
    async def then(request, reply):
        reply.begin(200, [(b"x", b"a\r\nset-cookie: b")], 0)
        reply.end()

    served.handler.then = then
    got = served.ask(post(b"", line="POST /x HTTP/1.1"))
    assert b" 500 " in got and b"set-cookie" not in got


def test_what_admit_sets_stands_on_every_answer_to_the_request(serving):
    served = serving(bodies=BodyLimits(each=10))
    admit = served.handler.admit

    def with_header(head):
        head.answer_headers.append((b"vary", b"Origin"))
        return admit(head)

    served.handler.admit = with_header
    for request in (post(b"", CLOSE), post(b"", CLOSE, line="POST /raise HTTP/1.1"), post(bytes(11), CLOSE)):
        assert only(served.ask(request))[1][b"vary"] == b"Origin"


@pytest.mark.parametrize("ends", [False, True])
def test_a_client_that_reads_nothing_is_cut_in_the_end_and_one_that_reads_slowly_is_not(served, ends):
    async def then(request, reply):
        reply.begin(200, [])
        reply.write(bytes(64 << 20))
        if ends:
            reply.end()
        await served.handler.go.wait()

    served.handler.then = then
    with closing(served.connect()) as client:
        client.sendall(post(b"", line="POST /x HTTP/1.1"))
        assert client.recv(1 << 20)
        [connection] = served.server._state.connections
        for _ in range(3):
            served.tick(UNREAD_S - 1)
            before = served.call(connection.transport.get_write_buffer_size)
            while served.call(connection.transport.get_write_buffer_size) > before - (1 << 20):
                assert client.recv(1 << 20)
            served.tick()
            assert served.call(lambda: served.server.connections) == 1
        served.tick(UNREAD_S)
        eventually(lambda: served.call(lambda: served.server.connections) == 0, "it is cut")
    eventually(lambda: served.handler.cancelled == (not ends), "its handler has ended")
    served.handler.go.set()


def test_a_source_is_paused_while_the_client_does_not_read(served):
    said: list[int] = []

    async def then(request, reply):
        reply.begin(200, [])
        count = 0
        while reply.write(bytes(10_000)):
            count += 1
        said.append(count)

        def on_writable():
            said.append(-1)
            reply.end()

        reply.on_writable = on_writable
        await served.handler.go.wait()

    served.handler.then = then
    with closing(served.connect()) as client:
        client.sendall(post(b"", CLOSE, line="POST /x HTTP/1.1"))
        eventually(lambda: said, "the client is behind")
        assert len(only(until_closed(client))[2]) == 10_000 * (said[0] + 1)
    assert said[1:] == [-1]


def test_a_stranger_is_closed_after_its_time_and_a_trusted_connection_is_not(served):
    with closing(served.connect()) as stranger, closing(served.connect()) as trusted:
        trusted.sendall(post(b"x"))
        assert trusted.recv(1000).endswith(b"x")
        counts = {"stranger": 1, "idle": 1, "busy": 0}
        eventually(lambda: served.call(lambda: served.guard.counts) == counts, "both are known")
        served.tick(LIMITS.stranger_s)
        assert until_closed(stranger) == b""
        trusted.sendall(post(b"y", CLOSE))
        assert only(until_closed(trusted))[2] == b"y"


def test_an_idle_connection_is_closed_in_the_end(served):
    with closing(served.connect()) as client:
        client.sendall(post(b"x"))
        assert client.recv(1000).endswith(b"x")
        served.tick(74)
        assert served.call(lambda: served.server.connections) == 1
        served.tick()
        assert until_closed(client) == b""


def test_a_source_with_too_many_strangers_loses_its_oldest(serving):
    served = serving(limits=ConnectionLimits(connections=6, strangers_per_source=2))
    clients = [served.connect() for _ in range(3)]
    assert until_closed(clients[0]) == b""
    clients[2].sendall(post(b"x", CLOSE))
    assert only(until_closed(clients[2]))[0] == 200
    for client in clients:
        client.close()


def test_strangers_whose_heads_take_too_much_together_are_closed(serving):
    """Each may have 64 KiB of a head, and there may be tens of thousands of them."""
    served = serving(limits=ConnectionLimits(connections=100, strangers_per_source=50, strange_bytes=50_000))
    with ExitStack() as stack:
        trusted, *strangers = (stack.enter_context(closing(served.connect())) for _ in range(9))
        trusted.sendall(post(b"x"))
        assert trusted.recv(1000).endswith(b"x")
        for stranger in strangers:
            stranger.sendall(b"GET / HTTP/1.1\r\nX: " + b"a" * 7000)
        assert [until_closed(stranger) for stranger in strangers[:1]] == [b""]
        counts = {"stranger": 7, "idle": 1, "busy": 0}
        eventually(lambda: served.call(lambda: served.guard.counts) == counts, "the others are there still")
        strangers[-1].sendall(b"\r\nAuthorization: Bearer key\r\nConnection: close\r\n\r\n")
        assert only(until_closed(strangers[-1]))[0] == 200
        for stranger in strangers[1:-1]:
            stranger.close()
        eventually(lambda: served.call(lambda: served.guard.counts["stranger"]) == 0, "they are gone")
        strangers = [stack.enter_context(closing(served.connect())) for _ in range(7)]
        for stranger in strangers:
            stranger.sendall(b"GET / HTTP/1.1\r\nX: " + b"a" * 7000)
        counts = {"stranger": 7, "idle": 1, "busy": 0}
        eventually(lambda: served.call(lambda: served.guard.counts) == counts, "what is gone counts no longer")
        trusted.sendall(post(b"y", CLOSE))
        assert only(until_closed(trusted))[2] == b"y"


def test_a_closing_server_finishes_what_is_in_flight(served):
    with closing(served.connect()) as idle, closing(served.connect()) as busy:
        idle.sendall(post(b"x"))
        assert idle.recv(1000).endswith(b"x")
        busy.sendall(post(b"y", line="POST /wait HTTP/1.1"))
        eventually(lambda: len(served.handler.requests) == 2, "one is being answered")
        served.call(served.server.close)
        assert until_closed(idle) == b""
        served.loop.soon(served.handler.go.set)
        _, headers, body = only(until_closed(busy))
        assert body == b"y" and headers[b"connection"] == b"close"
        assert served.loop.run(served.server.drained(20))
    with pytest.raises(ConnectionError):
        served.connect()


def test_a_client_that_offers_another_protocol_is_answered_in_http_1_1(served):
    """As Java's client does with its first request."""
    lines = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAEAAEAA")
    request = post(b"abc", *lines) + post(b"d", CLOSE)
    for cut in range(0, len(request), 7):
        first, second = answers(served.ask(request[:cut], request[cut:]))
        assert (first[2], second[2]) == (b"abc", b"d")
    assert not [name for name, _ in served.handler.requests[0].head.headers if name in (b"upgrade", b"http2-settings")]


class Reset(asyncio.Transport):
    """A connection that the client has reset, which the event loop has not told yet."""

    def __init__(self) -> None:
        super().__init__({"peername": ("127.0.0.1", 1)})
        self.written = b""

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += data

    def writelines(self, pieces) -> None:
        self.written += b"".join(pieces)

    def get_write_buffer_size(self) -> int:
        return 0

    def is_closing(self) -> bool:
        return False

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        raise OSError(errno.ENOTCONN, "Transport endpoint is not connected")


def test_a_client_that_has_just_reset_its_connection_gets_no_end_of_it(served):
    transport = Reset()
    connection = served.call(lambda: Connection(served.server._state))

    def ask():
        connection.connection_made(transport)
        connection.data_received(post(b"", line="POST /wait HTTP/1.1") + head("Content-Length: 99999999999"))

    served.call(ask)
    served.call(served.handler.go.set)
    eventually(lambda: b"HTTP/1.1 413" in transport.written, "the second request is refused behind the first answer")
    eventually(
        lambda: served.call(lambda: connection in served.server._state.lingering), "the connection is left to end"
    )
    served.call(lambda: connection.connection_lost(None))
