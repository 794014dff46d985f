"""Connections that have ended are freed at once, and the buffers of their TLS with them: collections are rare here."""

import socket
from contextlib import closing, suppress
from pathlib import Path

import pytest

from slurminfer.core.net.acceptor import Acceptor
from slurminfer.core.net.byte_relay import Front, own_unix_socket
from slurminfer.core.net.identity import client_context, make_identity, server_context
from slurminfer.core.net.sockets import listening_socket

from ...support.garbage import garbage
from ...support.waiting import eventually
from .conftest import Served, head, post, until_closed
from .test_pool import OK, Path_

COUNT = 5


def gone(served: Served) -> None:
    eventually(lambda: served.call(lambda: served.server.connections) == 0, "the server has noticed")


def ask(client: socket.socket) -> None:
    client.sendall(post(b"a", "Connection: close"))
    until_closed(client)


def ask_for_another_protocol(client: socket.socket) -> None:
    client.sendall(head("Content-Length: 1", "Connection: Upgrade, close", "Upgrade: h2c") + b"a")
    client.recv(10_000)


def send_what_is_no_http(client: socket.socket) -> None:
    client.sendall(b"\x00\r\n\r\n")
    client.recv(10_000)


def leave(client: socket.socket) -> None:
    client.sendall(head("Content-Length: 5"))


@pytest.mark.parametrize("talk", [ask, ask_for_another_protocol, send_what_is_no_http, leave])
@pytest.mark.parametrize("tls", [False, True])
def test_a_client_that_is_gone_leaves_nothing(secure, served, talk, tls):
    connect = secure(private=False) if tls else served.connect
    with garbage() as left:
        for _ in range(COUNT):
            with closing(connect()) as client:
                talk(client)
        gone(served)
    assert left == set()


def test_a_handshake_that_ends_early_leaves_nothing(secure, served):
    secure(private=False)
    with garbage() as left:
        for sent in (b"", b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01"):
            with closing(served.connect()) as client:
                client.sendall(sent)
                client.shutdown(socket.SHUT_WR)
                with suppress(ConnectionError):
                    until_closed(client)
    assert left == set()


@pytest.mark.parametrize("tls", [False, True])
def test_a_connection_to_a_worker_leaves_nothing(fast, tmp_path, tls):
    way = Path_(fast, tmp_path, tls)
    with garbage() as left:
        for _ in range(COUNT):
            way.ask(OK + b"Connection: close\r\n\r\nabc", close=True)
        eventually(lambda: way.worker.lost == COUNT, "all are closed")
    way.stop()
    assert left == set()


def test_a_gate_keeps_nothing_of_tls(fast, tmp_path):
    make_identity(tmp_path / "identity", "worker")
    engine = listening_unix_socket(tmp_path / "engine.sock")
    listener = listening_socket("127.0.0.1")

    async def accept() -> Acceptor:
        join = own_unix_socket(tmp_path / "engine.sock")
        acceptor = Acceptor(listener, server_context(tmp_path / "identity"), lambda: Front(join))
        acceptor.start()
        return acceptor

    acceptor, context = fast.run(accept()), client_context(tmp_path / "identity")
    with garbage() as left, closing(engine):
        for _ in range(COUNT):
            plain = socket.create_connection(listener.getsockname(), timeout=20)
            with closing(context.wrap_socket(plain)) as client, closing(engine.accept()[0]) as behind:
                behind.sendall(b"a")
                assert client.recv(1) == b"a"
    fast.soon(acceptor.close)
    assert not [kind for kind in left if kind.__module__.startswith("uvloop")]


def listening_unix_socket(path: Path) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(20)
    sock.bind(str(path))
    sock.listen()
    return sock
