"""Requests that are no HTTP, or that two servers might read differently: refused, and nothing behind them is read."""

import json
from contextlib import closing, suppress
from itertools import pairwise
from unittest.mock import Mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slurminfer.router.http.heads import split_target

from .conftest import LIMITS, answers, head, post, until_closed

SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer key\r\n\r\n"


@pytest.mark.parametrize(
    "request_",
    [
        head("Content-Length: 5", "Transfer-Encoding: chunked") + b"0\r\n\r\n",
        head("Transfer-Encoding: chunked", "Content-Length: 5") + b"0\r\n\r\n",
        head("Content-Length: 0", "Content-Length: 5"),
        head("Content-Length: 5", "Content-Length: 5") + b"abcde",
        head("Content-Length: 5, 5") + b"abcde",
        head("Content-Length: +5") + b"abcde",
        head("Content-Length: -1"),
        head("Content-Length: 0x5") + b"abcde",
        head("Content-Length: 99999999999999999999999"),
        head("Content-Length : 5") + b"abcde",
        head("Content-Length\t: 5") + b"abcde",
        head("Transfer-Encoding: identity"),
        head("Transfer-Encoding: xchunked") + b"0\r\n\r\n",
        head("Transfer-Encoding: chunked, identity") + b"0\r\n\r\n",
        head("Transfer-Encoding: gzip"),
        head("Transfer-Encoding: gzip, chunked") + b"0\r\n\r\n",
        head("Transfer-Encoding: chunked", "Transfer-Encoding: chunked") + b"0\r\n\r\n",
        head("Transfer-Encoding: gzip", "Transfer-Encoding: chunked") + b"0\r\n\r\n",
        head("Transfer-Encoding: identity", "Transfer-Encoding: chunked") + b"0\r\n\r\n",
        head("Transfer-Encoding: chunked", line="POST /echo HTTP/1.0") + b"0\r\n\r\n",
        head("Transfer-Encoding: chunked") + b"-1\r\n",
        head("Transfer-Encoding: chunked") + b"0x1\r\na\r\n0\r\n\r\n",
        head("Transfer-Encoding: chunked") + b"1 \r\na\r\n0\r\n\r\n",
        head("Transfer-Encoding: chunked") + b"ffffffffffffffffff\r\n",
        head("Transfer-Encoding: chunked") + b"1\na\n0\n\n",
        head("Transfer-Encoding: chunked") + b"1\r\nab\r\n0\r\n\r\n",
        head("Host: a", "Host: b"),
        head("Authorization: Bearer other"),
        head("X-Api-Key: a", "x-api-key: b"),
        head("Content-Encoding: gzip", "Content-Encoding: identity", "Content-Length: 5") + b"abcde",
        head("X: a", " folded: b"),
        head("X: a\nY: b"),
        head("X: a\rY: b"),
        head("X: a\0b"),
        head("X\0: a"),
        head(": a"),
        head("no colon"),
        b"POST /echo HTTP/1.1\n\n",
        b"\0garbage\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET / HTTP/0.9\r\n\r\n",
        b"GET /\r\n",
        b"GET / HTTP/1.2\r\n\r\n",
        b"GET / HTTP/2.0\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"get / HTTP/1.1\r\n\r\n",
        b"CONNECT example.org:443 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET example.org HTTP/1.1\r\n\r\n",
        b"GET ftp://example.org/ HTTP/1.1\r\n\r\n",
        b"GET * HTTP/1.1\r\n\r\n",
        b"GET /a#b HTTP/1.1\r\n\r\n",
        b"GET /a b HTTP/1.1\r\n\r\n",
        b"GET /\xc3\xa9 HTTP/1.1\r\n\r\n",
        b"GET /\0 HTTP/1.1\r\n\r\n",
    ],
)
def test_what_is_not_plainly_one_request_is_refused_and_nothing_behind_it_is_read(served, request_):
    [(status, headers, body)] = answers(served.ask(request_ + SMUGGLED))
    assert status == 400 and headers[b"connection"] == b"close"
    assert json.loads(body)["error"]["type"] == "invalid_request_error"
    assert "/smuggled" not in [head.path for head in served.handler.heads]
    assert not served.handler.requests


def test_a_client_that_speaks_http2_at_once_is_told_what_is_expected(served):
    [(status, _, body)] = answers(served.ask(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"))
    assert status == 400 and b"HTTP/2 is not spoken here: expected HTTP/1.1" in body


def test_very_many_offers_of_another_protocol_at_once_are_nothing_special(served, caplog):
    offer = head("Connection: Upgrade", "Upgrade: h2c", line="GET /echo HTTP/1.1", key="wrong")
    found = answers(served.ask(offer * 2000 + head("Connection: close", key="wrong")))
    assert {status for status, _, _ in found} == {401} and len(found) == 2001
    assert not [record for record in caplog.records if record.exc_info]


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\n\r\n", 414),
        (b"GET /" + b"a" * 900_000, 414),
        (head("X: " + "a" * 9000), 431),
        (head("X: " + "a" * 90_000), 431),
        (head(*(f"X-{n}: a" for n in range(101))), 431),
        (head(*(f"X-{n}: a" for n in range(101)))[:-2], 431),
        (head(*(f"X-{n}: {'a' * 8000}" for n in range(9))), 431),
        (b"GET / HTTP/1.1\r\n" + b"X" * 300_000, 431),
        (head("Expect: something", "Content-Length: 1"), 417),
    ],
)
def test_a_head_is_bounded(served, request_, status):
    with closing(served.connect()) as client:
        with suppress(OSError):
            client.sendall(request_)
        [(got, headers, _)] = answers(until_closed(client))
    assert got == status and headers[b"connection"] == b"close"


def test_a_head_in_small_pieces_is_bounded(served):
    sent, transport = head("X: " + "a" * 9000), Mock()
    transport.is_closing.return_value = False

    def receive() -> None:
        connection = served.server.protocol()
        connection.connection_made(transport)
        for at in range(0, len(sent), 1000):
            connection.data_received(sent[at : at + 1000])
        connection.connection_lost(None)

    served.call(receive)
    assert b" 431 " in transport.write.call_args.args[0]


def test_a_head_that_comes_with_the_end_of_a_large_body_is_not_counted_with_it(served):
    body = bytes(200_000)
    first, second = answers(served.ask(post(body) + post(b"x", "Connection: close")))
    assert (first[2], second[2]) == (body, b"x")


@pytest.mark.parametrize("rest", [b"1;" + b"x" * 2_000_000, b"0\r\nT: " + b"x" * 2_000_000])
def test_what_is_framing_only_is_bounded(served, rest):
    with closing(served.connect()) as client:
        with suppress(OSError):
            client.sendall(head("Transfer-Encoding: chunked") + rest)
        got = until_closed(client)
    assert not got or answers(got)[0][0] == 400
    assert not served.handler.requests


def test_a_body_in_chunks_of_one_byte_is_read(served):
    body = b"1\r\na\r\n" * 200_000 + b"0\r\nTrailer: ignored\r\n\r\n"
    [(_, _, got)] = answers(served.ask(head("Transfer-Encoding: chunked", "Connection: close") + body))
    assert got == b"a" * 200_000
    assert b"trailer" not in dict(served.handler.requests[0].head.headers)


@pytest.mark.parametrize(
    ("target", "origin", "path"),
    [
        (b"/v1/models", b"/v1/models", "/v1/models"),
        (b"/v1/%6dodels?a=%2f", b"/v1/%6dodels?a=%2f", "/v1/models"),
        (b"/a?b?c", b"/a?b?c", "/a"),
        (b"/%ff%C3%A9", b"/%ff%C3%A9", "/\ufffd\u00e9"),
        (b"http://example.org/a?b", b"/a?b", "/a"),
        (b"HTTPS://user@example.org:8/a", b"/a", "/a"),
        (b"http://example.org", b"/", "/"),
        (b"http://example.org?x", b"/?x", "/"),
        (b"//example.org/a", b"//example.org/a", "//example.org/a"),
    ],
)
def test_targets(target, origin, path):
    assert split_target(b"GET", target) == (origin, path)


def test_an_absolute_target_reaches_the_handler_without_its_host(served):
    line = "POST http://example.org/echo?x HTTP/1.1"
    [(status, _, _)] = answers(served.ask(post(b"", "Connection: close", line=line)))
    assert status == 200 and served.handler.heads[0].target == b"/echo?x"


def test_malformed_requests_cost_one_line_of_log(served, caplog):
    for _ in range(20):
        assert answers(served.ask(b"\0garbage\r\n\r\n"))[0][0] == 400
    [record] = [record for record in caplog.records if "malformed" in record.getMessage()]
    assert record.exc_info is None


STREAM = (
    post(b"one")
    + head("Transfer-Encoding: chunked", line="POST /parts HTTP/1.1")
    + b"2\r\nab\r\n3;x=y\r\ncde\r\n0\r\nT: v\r\n\r\n"
    + head(line="GET /echo?x HTTP/1.1")
    + post(b"two", "Connection: Upgrade", "Upgrade: h2c")
    + post(b"last", "Connection: close")
)


@settings(max_examples=60, deadline=None)
@given(cuts=st.lists(st.integers(0, len(STREAM)), max_size=12))
def test_wherever_the_stream_is_cut_the_answers_are_the_same(fast_served, cuts):
    at = [0, *sorted(cuts), len(STREAM)]
    pieces = [STREAM[a:b] for a, b in pairwise(at) if a < b]
    got = [(status, body) for status, _, body in answers(fast_served.ask(*pieces))]
    assert got == [(200, b"one"), (200, b"abcde"), (200, b""), (200, b"two"), (200, b"last")]


@settings(max_examples=100, deadline=None)
@given(garbage=st.binary(min_size=1, max_size=300), at=st.integers(0, 200), cut=st.integers(0, 10))
def test_garbage_anywhere_never_hangs_nor_fails(fast_served, garbage, at, cut):
    request = post(b"hello")
    data = request[:at] + garbage + request[at + cut :]
    with closing(fast_served.connect()) as client:
        client.sendall(data)
        client.shutdown(1)
        got = until_closed(client)
    for status in (line.split(b" ")[1] for line in got.split(b"\r\n") if line.startswith(b"HTTP/1.1 ")):
        assert int(status) < 500
    assert LIMITS.head_bytes > len(got)


@pytest.fixture(scope="module")
def fast_served(fast):
    from slurminfer.router.http.bodies import BodyLimits

    from .conftest import Served

    served = Served(fast, None, LIMITS, BodyLimits())
    yield served
    served.stop()
