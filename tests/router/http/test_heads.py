"""Heads that are passed on: nothing of one connection, no credentials, no line that a value has smuggled in."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slurminfer.router.http.heads import answer_head, answer_headers, content_length, request_head

CLIENTS = [
    (b"host", b"example.org"),
    (b"authorization", b"Bearer client"),
    (b"x-api-key", b"client"),
    (b"connection", b"keep-alive, X-Hop"),
    (b"x-hop", b"1"),
    (b"content-length", b"7"),
    (b"transfer-encoding", b"chunked"),
    (b"content-encoding", b"gzip"),
    (b"accept-encoding", b"br"),
    (b"expect", b"100-continue"),
    (b"x-request-id", b"client"),
    (b"x-slurminfer-admin", b"1"),
    (b"te", b"trailers"),
    (b"upgrade", b"h2c"),
    (b"content-type", b"application/json"),
    (b"x-session-id", b"\xe9"),
    (b"cookie", b"a"),
    (b"cookie", b"b"),
]


def test_a_request_goes_on_without_what_belongs_to_the_client_and_its_connection():
    head = request_head(b"POST", b"/v1/x?y", CLIENTS, key="worker", body_length=3, request_id="id")
    first, *lines = head.split(b"\r\n")
    assert first == b"POST /v1/x?y HTTP/1.1"
    assert sorted(lines) == sorted(
        [
            *(b"", b"Host: worker", b"Accept-Encoding: identity", b"Content-Length: 3", b"X-Request-Id: id"),
            *(b"Authorization: Bearer worker", b"content-type: application/json", b"x-session-id: \xe9"),
            *(b"cookie: a", b"cookie: b"),
        ]
    )


def test_without_a_key_there_is_no_authorization():
    assert b"uthorization" not in request_head(b"GET", b"/", CLIENTS)


def test_an_answer_goes_on_without_what_belongs_to_the_worker_and_its_connection():
    workers = [
        (b"connection", b"X-Hop"),
        (b"x-hop", b"1"),
        (b"date", b"then"),
        (b"server", b"uvicorn"),
        (b"content-length", b"7"),
        (b"transfer-encoding", b"chunked"),
        (b"access-control-allow-origin", b"*"),
        (b"x-request-id", b"worker"),
        (b"content-type", b"text/event-stream"),
        (b"content-encoding", b"gzip"),
    ]
    assert answer_headers(workers) == [(b"content-type", b"text/event-stream"), (b"content-encoding", b"gzip")]
    assert content_length(workers) == 7 and content_length([]) is None


@given(
    method=st.sampled_from([b"POST", b"GET\r\nX: y"]),
    target=st.binary(max_size=5),
    name=st.binary(max_size=5),
    value=st.binary(max_size=5),
)
def test_no_part_of_a_head_can_add_a_line(method, target, name, value):
    parts = method + target + name + value
    breaks = b"\r" in parts or b"\n" in parts
    if breaks:
        with pytest.raises(ValueError):
            request_head(method, target, [(name, value)])
    else:
        head = request_head(method, target, [(name, value)])
        assert head.count(b"\n") == head.count(b"\r\n") == head.count(b"\r")
    if b"\r" in name + value or b"\n" in name + value:
        with pytest.raises(ValueError):
            answer_head(200, [(name, value)], b"")


def test_a_status_without_a_name_is_written_as_well():
    assert answer_head(299, [], b"").startswith(b"HTTP/1.1 299 \r\n")


def test_of_several_types_of_content_a_worker_gets_the_last():
    head = request_head(b"POST", b"/", [(b"content-type", b"a/b"), (b"x", b"y"), (b"content-type", b"c/d")])
    assert head.lower().count(b"content-type") == 1 and b"c/d" in head and b"a/b" not in head
