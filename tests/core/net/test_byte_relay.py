"""Bytes through the gate: whole, in both directions, bounded, and ended when either side ends."""

import asyncio
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import uvloop

from slurminfer.core.net.acceptor import Acceptor
from slurminfer.core.net.byte_relay import Front, own_unix_socket
from slurminfer.core.net.identity import client_context, make_identity, server_context

from ...support.loop import Loop
from ...support.waiting import eventually


class Gated:
    """An engine's socket, which the test serves by hand, behind a gate."""

    def __init__(self, folder: Path) -> None:
        self.path, self._identity = folder / "s", folder / "id.pem"
        make_identity(self._identity, "gate")
        self._engine = socket.socket(socket.AF_UNIX)
        self._engine.settimeout(20)
        self._engine.bind(str(self.path))
        self._engine.listen()
        self._loop = Loop(uvloop.new_event_loop())
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._address = self._listener.getsockname()
        self._loop.run(self._start())

    async def _start(self) -> None:
        self._acceptor = Acceptor(
            self._listener, server_context(self._identity), lambda: Front(own_unix_socket(self.path))
        )
        self._acceptor.start()

    def client(self) -> socket.socket:
        plain = socket.create_connection(self._address, timeout=20)
        return client_context(self._identity).wrap_socket(plain, suppress_ragged_eofs=False)

    def accepted(self) -> socket.socket:
        """The engine's end of the next connection."""
        connection, _ = self._engine.accept()
        connection.settimeout(20)
        return connection

    def stop_engine(self) -> None:
        self._engine.close()

    def close(self) -> None:
        async def close() -> None:
            self._acceptor.close()
            for task in asyncio.all_tasks() - {asyncio.current_task()}:
                task.cancel()

        self._loop.run(close())
        self._loop.close()
        self._engine.close()


@pytest.fixture
def gated() -> Iterator[Gated]:
    with tempfile.TemporaryDirectory() as folder:
        gated = Gated(Path(folder))
        yield gated
        gated.close()


def receive(connection: socket.socket, length: int) -> bytes:
    found = bytearray()
    while len(found) < length and (data := connection.recv(1 << 16)):
        found += data
    return bytes(found)


def test_bytes_arrive_as_they_were_sent_in_both_directions(gated):
    request, answer = b"q" * 3_000_000, bytes(range(256)) * 20_000
    with gated.client() as client, gated.accepted() as engine:
        threading.Thread(target=client.sendall, args=[request]).start()
        assert receive(engine, len(request)) == request
        threading.Thread(target=engine.sendall, args=[answer]).start()
        assert receive(client, len(answer)) == answer


def test_what_the_engine_has_said_before_its_end_arrives(gated):
    answer = b"a" * 5_000_000
    with gated.client() as client, gated.accepted() as engine:

        def say() -> None:
            engine.sendall(answer)
            engine.close()

        threading.Thread(target=say).start()
        assert receive(client, len(answer) + 1) == answer, "and then an orderly end"


def test_the_engine_learns_at_once_that_the_router_has_gone(gated):
    with gated.client() as client, gated.accepted() as engine:
        client.sendall(b"ask")
        assert receive(engine, 3) == b"ask"
        engine.sendall(b"x" * 100_000)
        client.close()
        with suppress(ConnectionError):
            assert engine.recv(1) == b""


def test_an_engine_whose_answer_nobody_reads_has_to_wait(gated):
    with gated.client() as client, gated.accepted() as engine:
        engine.setblocking(False)
        sent = 0

        def stands_still() -> bool:
            nonlocal sent
            before = sent
            until = time.monotonic() + 0.2
            while time.monotonic() < until:
                try:
                    sent += engine.send(b"x" * 65536)
                except BlockingIOError:
                    time.sleep(0.01)
            return 0 < before == sent

        eventually(stands_still)
        assert sent < 32 << 20
        assert receive(client, sent) == b"x" * sent


def test_without_an_engine_the_connection_ends(gated):
    gated.stop_engine()
    with gated.client() as client, suppress(OSError):
        assert client.recv(1) == b""


def test_an_engine_of_another_user_gets_nothing(gated, monkeypatch):
    monkeypatch.setattr("slurminfer.core.net.byte_relay.peer_uid", lambda _: 4242)
    with gated.client() as client, gated.accepted() as engine:
        with suppress(OSError):  # the end may come before the bytes are sent, or instead of an answer
            client.sendall(b"a prompt")
            assert client.recv(1) == b""
        assert engine.recv(1) == b""
