"""A port that everybody reaches: who has the identity gets in, strangers use up neither descriptors nor the log."""

import asyncio
import logging
import os
import socket
import ssl
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import uvloop

from slurminfer.core.net.acceptor import Acceptor
from slurminfer.core.net.identity import client_context, make_identity, server_context

from ..support.loop import Loop
from ..support.waiting import eventually


class Echo(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.transport.write(data)


class Port:
    """An acceptor of `most_handshakes`, in a loop of its own."""

    def __init__(self, folder: Path, loop: Loop, **limits) -> None:
        self.folder, self._loop = folder, loop
        make_identity(folder / "own.pem", "own")
        make_identity(folder / "other.pem", "other")
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = self._listener.getsockname()
        loop.run(self._start(limits))

    async def _start(self, limits) -> None:
        self.acceptor = Acceptor(self._listener, server_context(self.folder / "own.pem"), Echo, **limits)
        self.acceptor.start()

    def connect(self) -> socket.socket:
        return socket.create_connection(self.address, timeout=20)

    def ask(self, identity: str) -> bytes:
        with client_context(self.folder / identity).wrap_socket(self.connect()) as client:
            client.sendall(b"hello")
            return client.recv(100)

    def close(self) -> None:
        async def close() -> None:
            self.acceptor.close()

        self._loop.run(close())


@pytest.fixture(params=["asyncio", "uvloop"])
def loop(request) -> Iterator[Loop]:
    loop = Loop(uvloop.new_event_loop() if request.param == "uvloop" else asyncio.new_event_loop())
    yield loop
    loop.close()


@pytest.fixture
def port(tmp_path, loop) -> Iterator[Port]:
    tmp_path.chmod(0o700)
    port = Port(tmp_path, loop, most_handshakes=4)
    yield port
    port.close()


def test_who_has_the_identity_gets_in(port):
    assert port.ask("own.pem") == b"hello"


def test_others_do_not(port):
    with pytest.raises(ssl.SSLError):
        port.ask("other.pem")
    anonymous = ssl.create_default_context()
    anonymous.check_hostname, anonymous.verify_mode = False, ssl.CERT_NONE
    with pytest.raises((ssl.SSLError, ConnectionError)), anonymous.wrap_socket(port.connect()) as client:
        client.sendall(b"hello")
        assert client.recv(100) == b""
        raise ConnectionError
    with port.connect() as client:
        client.sendall(b"GET /health HTTP/1.1\r\n\r\n")
        assert b"HTTP" not in client.recv(100)
    assert port.ask("own.pem") == b"hello"


def test_silent_strangers_give_way_to_others_and_leave_no_descriptor(port, caplog):
    port.ask("own.pem")
    before = len(os.listdir("/proc/self/fd")) + 2  # what an event loop opens for itself
    strangers = [port.connect() for _ in range(40)]
    assert port.ask("own.pem") == b"hello"
    eventually(lambda: port.acceptor.refused >= 36, "the oldest were closed")
    for stranger in strangers:
        stranger.close()
    eventually(lambda: port.acceptor.refused >= 40 and not port.acceptor._handshakes)
    eventually(lambda: len(os.listdir("/proc/self/fd")) <= before)
    assert len([record for record in caplog.records if record.levelno >= logging.WARNING]) <= 1


def test_a_handshake_has_a_time(tmp_path, loop):
    tmp_path.chmod(0o700)
    port = Port(tmp_path, loop, handshake_s=0.05)
    with port.connect() as stranger:
        assert stranger.recv(1) == b""
    port.close()


ANSWER = b"HTTP/1.1 400 Bad Request\r\n\r\nuse https://"


@pytest.fixture
def answering(tmp_path, loop) -> Iterator[Port]:
    """A port that tells plain HTTP where it is."""
    tmp_path.chmod(0o700)
    port = Port(tmp_path, loop, most_handshakes=4, to_plain_http=ANSWER)
    yield port
    port.close()


def until_closed(client: socket.socket) -> bytes:
    with suppress(ConnectionResetError):
        return b"".join(iter(lambda: client.recv(1000), b""))
    return b""


@pytest.mark.parametrize("sent", [b"GET / HTTP/1.1\r\n\r\n", b"POST / HTTP/1.1\r\n\r\n" + bytes(500_000)])
def test_plain_http_is_answered_where_there_is_an_answer(answering, sent):
    with answering.connect() as client:
        client.sendall(sent)
        assert until_closed(client) == ANSWER
    assert answering.ask("own.pem") == b"hello"
    eventually(lambda: not answering.acceptor._handshakes)
    assert answering.acceptor.refused == 1


def test_what_is_neither_tls_nor_http_gets_nothing(answering):
    with answering.connect() as client:
        client.sendall(bytes(100))
        assert until_closed(client) == b""


def test_who_does_not_hang_up_after_the_answer_gives_way_to_others(answering):
    answering.ask("own.pem")
    before = len(os.listdir("/proc/self/fd")) + 2  # what an event loop opens for itself
    clients = [answering.connect() for _ in range(20)]
    for client in clients:
        client.sendall(b"GET / HTTP/1.1\r\n\r\n")
    eventually(lambda: answering.acceptor.refused >= 16, "the oldest were closed")
    assert answering.ask("own.pem") == b"hello"
    for client in clients:
        client.close()
    eventually(lambda: len(os.listdir("/proc/self/fd")) <= before, "no descriptor is left")
