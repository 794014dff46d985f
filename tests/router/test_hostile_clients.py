"""Clients that say nothing, too much, or what is no HTTP, with and without the key: on bare sockets."""

import gzip
import resource
import socket
import subprocess
import sys
from contextlib import suppress

import httpx
import pytest

from slurminfer.core.spec.router import RouterSpec
from slurminfer.router.http.bodies import BodyLimits
from slurminfer.router.relay import server

CHAT = b'{"model": "stub-model", "messages": []}'


def connected(url):
    host, port = url.removeprefix("http://").split(":")
    client = socket.create_connection((host, int(port)), timeout=20)
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return client


def head(deployment, *headers, key=None):
    lines = ["POST /v1/completions HTTP/1.1", "Host: x", f"Authorization: Bearer {key or deployment.run.key()}"]
    return "\r\n".join([*lines, *headers, "", ""]).encode()


def answer_of(client):
    """Status and body of an answer after which the connection is closed."""
    data = b""
    try:
        while piece := client.recv(1 << 16):
            data += piece
    except ConnectionResetError:
        pass
    start, _, body = data.partition(b"\r\n\r\n")
    return int(start.split(b" ")[1]), start.lower(), body


def test_a_body_announced_as_too_large_is_refused_at_once(one):
    with connected(one.url) as client:
        client.sendall(head(one, f"Content-Length: {BodyLimits().each + 1}"))
        status, start, body = answer_of(client)
    assert status == 413 and b"connection: close" in start and b"invalid_request_error" in body


@pytest.mark.parametrize("how", ["Content-Length: 60000000", "Transfer-Encoding: chunked", "Expect: 100-continue"])
def test_nothing_of_a_body_is_asked_for_before_the_key_was_right(one, how):
    with connected(one.url) as client:
        client.sendall(head(one, how, "Content-Length: 9" if "Expect" in how else "X: y", key="wrong"))
        status, start, body = answer_of(client)
    assert status == 401 and b"connection: close" in start and b"www-authenticate: bearer" in start
    assert b"authentication_error" in body


def test_a_chunked_body_is_cut_at_the_limit(one, monkeypatch):
    one.stop_router()
    monkeypatch.setattr(server, "body_limits", lambda relays: BodyLimits(each=1000))
    one.start_router()
    with connected(one.url) as client:
        client.sendall(head(one, "Transfer-Encoding: chunked") + (b"1f4\r\n" + b"x" * 500 + b"\r\n") * 3)
        assert answer_of(client)[0] == 413


def test_a_client_that_waits_for_100_continue_gets_it_and_its_answer(one):
    with connected(one.url) as client:
        client.sendall(head(one, f"Content-Length: {len(CHAT)}", "Expect: 100-continue", "Connection: close"))
        assert client.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.sendall(CHAT)
        assert answer_of(client)[0] == 200


def test_bodies_beyond_what_may_be_held_together_get_503_and_when_to_come_back(one, monkeypatch, eventually):
    one.stop_router()
    monkeypatch.setattr(server, "body_limits", lambda relays: BodyLimits(together=10_000))
    one.start_router()
    with connected(one.url) as first:
        first.sendall(head(one, "Content-Length: 9000") + b" " * 7000)
        eventually(lambda: one.chat(prompt="x" * 5000).status_code == 503)
        answer = one.chat(prompt="x" * 5000)
        assert int(answer.headers["Retry-After"]) > 0
        assert one.chat().status_code == 200, "one that still fits"
    eventually(lambda: one.chat(prompt="x" * 5000).status_code == 200)


@pytest.mark.parametrize(
    ("encoding", "status"), [("gzip", 400), ("deflate", 400), ("zstd", 400), ("br", 415), ("nonsense", 415)]
)
def test_a_body_that_cannot_be_decompressed_is_the_clients_error(one, encoding, status):
    answer = one.http.post("/v1/completions", content=b"abcd", headers={"Content-Encoding": encoding})
    assert answer.status_code == status
    assert answer.json()["error"]["type"] == "invalid_request_error"


def test_a_compressed_body_arrives_decompressed(one):
    answer = one.http.post("/v1/completions", content=gzip.compress(CHAT), headers={"Content-Encoding": "gzip"})
    assert answer.status_code == 200
    _, headers, body = one.stubs[0].requests[-1]
    assert body == CHAT and "content-encoding" not in headers


def test_a_bomb_is_refused(one):
    bomb = gzip.compress(b" " * (BodyLimits().each + 1))
    assert one.http.post("/v1/completions", content=bomb, headers={"Content-Encoding": "gzip"}).status_code == 413


def test_malformed_heads_cost_no_line_of_log_each(one, caplog):
    for _ in range(50):
        with connected(one.url) as client:
            client.sendall(b"\x00garbage\r\n\r\n")
            assert answer_of(client)[0] == 400
    assert sum("malformed" in line for line in caplog.messages) <= 1
    assert not [record for record in caplog.records if record.exc_info]


@pytest.mark.parametrize(("count", "size"), [(1_000_000, 100), (80, 8000)])
def test_a_head_that_never_ends_is_cut(one, count, size):
    """Of many lines, which aiohttp counts, or of few long ones."""
    with connected(one.url) as client:
        with suppress(OSError):
            client.sendall(b"GET /health HTTP/1.1\r\n")
            for number in range(count):
                client.sendall(b"X-%d: %b\r\n" % (number, b"x" * size))
        with suppress(ConnectionResetError):
            client.settimeout(5)  # less than a silent connection has
            while client.recv(1 << 16):
                pass
    assert one.chat().status_code == 200


def test_the_specs_limit_of_connections_without_a_key_is_used():
    assert server.connection_limits(RouterSpec(pending_connections=7), 1).strangers_per_source == 7
    assert server.connection_limits(RouterSpec(pending_connections=7), 2).strangers_per_source == 4
    limits = server.connection_limits(RouterSpec(), 2)
    assert limits.strangers_per_source == limits.connections // 2


@pytest.mark.process
def test_silent_connections_beyond_the_descriptors_starve_nobody(empty, eventually):
    empty.add("cpu-0")
    code = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256)); sys.argv[1:] = [sys.argv[1]]\n"
        "from slurminfer.router.__main__ import main; sys.exit(main())"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(empty.run.path)], stderr=subprocess.PIPE)
    silent = []
    try:
        eventually(lambda: empty.run.read_router() or process.poll() is not None)
        url = empty.run.read_router().url
        headers = {"Authorization": f"Bearer {empty.run.key()}"}
        for _ in range(6):
            silent += [connected(url) for _ in range(50)]
            answer = httpx.post(f"{url}/v1/chat/completions", content=CHAT, headers=headers)
            assert answer.status_code == 200
            assert httpx.get(f"{url}/metrics", headers=headers).status_code == 200
    finally:
        for client in silent:
            client.close()
        process.terminate()
        _, said = process.communicate(timeout=30)
    assert said.count(b"\n") < 20, said
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] > 256
