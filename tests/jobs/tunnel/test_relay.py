"""Connections to the local port: where they go, and how they wait."""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Iterator

import pytest

from slurminfer.core.net.byte_relay import Back
from slurminfer.jobs.tunnel.relay import Relay, Target, over_socket, over_tcp

from ...support.loop import Loop
from ...support.waiting import eventually


class Local:
    """A relay on loopback, in a loop of its own."""

    def __init__(self, hold_s: float) -> None:
        self.loop = Loop()
        self.refused = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._address = self._listener.getsockname()
        self.loop.run(self._start(hold_s))

    async def _start(self, hold_s: float) -> None:
        self.target = Target()
        self._relay = Relay(self._listener, self.target, self._refuse, hold_s=hold_s, again_s=0.01)
        await self._relay.start()

    def _refuse(self) -> None:
        self.refused += 1

    def lead(self, route: Callable[[Back], Awaitable[None]] | None) -> None:
        async def lead() -> None:
            self.target.set(route)

        self.loop.run(lead())

    def client(self) -> socket.socket:
        return socket.create_connection(self._address, timeout=30)

    def close(self) -> None:
        async def close() -> None:
            self._relay.close()
            for task in asyncio.all_tasks() - {asyncio.current_task()}:
                task.cancel()

        self.loop.run(close())
        self.loop.run(asyncio.sleep(0))
        self.loop.close()


@pytest.fixture
def make() -> Iterator[Callable[..., Local]]:
    made: list[Local] = []

    def make(hold_s: float = 600.0) -> Local:
        made.append(Local(hold_s))
        return made[-1]

    yield make
    for local in made:
        local.close()


@pytest.fixture
def server() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(30)
        yield server


def exchange(client: socket.socket, server: socket.socket) -> None:
    """Pass bytes in both directions over a new connection."""
    client.sendall(b"question")
    accepted, _ = server.accept()
    with accepted:
        accepted.settimeout(30)
        assert accepted.recv(100) == b"question"
        accepted.sendall(b"answer")
        assert client.recv(100) == b"answer"


def test_a_connection_waits_for_a_router(make, server):
    local = make()
    with local.client() as client:
        client.sendall(b"question")
        local.lead(over_tcp(*server.getsockname()))
        accepted, _ = server.accept()
        with accepted:
            assert accepted.recv(100) == b"question"


def test_new_connections_follow_and_old_ones_stay(make, server):
    local = make()
    local.lead(over_tcp(*server.getsockname()))
    with socket.create_server(("127.0.0.1", 0)) as successor, local.client() as old:
        successor.settimeout(30)
        kept, _ = server.accept()
        local.lead(over_tcp(*successor.getsockname()))
        with kept, local.client() as new:
            exchange(new, successor)
            old.sendall(b"still here")
            assert kept.recv(100) == b"still here"


def test_a_router_that_does_not_accept_yet_is_tried_again(make, server):
    local = make()
    attempts = []
    reach = over_tcp(*server.getsockname())

    async def slow_to_start(back: Back) -> None:
        attempts.append(back)
        if len(attempts) < 3:
            raise ConnectionRefusedError("not yet")
        await reach(back)

    local.lead(slow_to_start)
    with local.client() as client:
        exchange(client, server)
    assert len(attempts) == 3


def test_a_connection_does_not_wait_for_ever(make):
    local = make(hold_s=0.0)
    with local.client() as client, pytest.raises(ConnectionResetError):
        client.sendall(b"question")
        assert client.recv(100) == b""
        raise ConnectionResetError


@pytest.fixture
def ssh(tmp_path) -> Iterator[socket.socket]:
    """A Unix socket that the test serves as ssh does."""
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "s"))
        server.listen()
        server.settimeout(30)
        yield server


def test_a_unix_socket_is_a_way_too(make, ssh, tmp_path):
    local = make()
    local.lead(over_socket(tmp_path / "s"))
    with local.client() as client:
        exchange(client, ssh)
    assert local.refused == 0


def unread(server: socket.socket) -> None:
    """Accept a connection and close it with what was sent unread, as ssh does where it finds no router."""
    accepted, _ = server.accept()
    with accepted:
        accepted.settimeout(30)
        assert accepted.recv(100, socket.MSG_PEEK) == b"question"


def test_what_ssh_has_not_read_is_sent_again(make, ssh, tmp_path):
    local = make()
    local.lead(over_socket(tmp_path / "s"))
    with local.client() as client:
        client.sendall(b"question")
        unread(ssh)
        unread(ssh)
        accepted, _ = ssh.accept()
        with accepted:
            assert accepted.recv(100) == b"question"
            accepted.sendall(b"answer")
            assert client.recv(100) == b"answer"
            client.sendall(b"another")
            assert accepted.recv(100) == b"another"


def test_what_a_router_has_read_is_not_sent_again(make, ssh, tmp_path):
    local = make()
    local.lead(over_socket(tmp_path / "s"))
    with local.client() as client:
        client.sendall(b"question")
        accepted, _ = ssh.accept()
        with accepted:
            assert accepted.recv(100) == b"question"
        assert client.recv(100) == b""


def test_after_an_answer_nothing_begins_anew(make, ssh, tmp_path):
    local = make()
    local.lead(over_socket(tmp_path / "s"))
    with local.client() as client:
        client.sendall(b"a")
        accepted, _ = ssh.accept()
        with accepted:
            assert accepted.recv(1) == b"a"
            accepted.sendall(b"answer")
            assert client.recv(100) == b"answer"
            client.sendall(b"question")
            assert accepted.recv(100, socket.MSG_PEEK) == b"question"
        with pytest.raises(ConnectionResetError):
            if client.recv(100) == b"":
                raise ConnectionResetError


def test_a_client_that_leaves_meanwhile_is_forgotten(make, ssh, tmp_path):
    local = make()
    local.lead(None)
    with local.client() as client:
        client.sendall(b"question")
    local.lead(over_socket(tmp_path / "s"))
    accepted, _ = ssh.accept()
    with accepted:
        accepted.settimeout(30)
        while accepted.recv(100):
            pass


def test_what_comes_when_ssh_has_closed_already_is_sent_again(make, ssh, tmp_path):
    local = make()
    reach = over_socket(tmp_path / "s")
    ended: list[bool] = []

    async def find_it_closed(back: Back) -> None:
        """Hand on the first connection when ssh has closed it and the loop has not noticed."""
        await reach(back)
        if not ended:
            ssh.accept()[0].close()
            ended.append(True)

    local.lead(find_it_closed)
    with local.client() as client:
        client.sendall(b"question")
        eventually(lambda: ended)
        accepted, _ = ssh.accept()
        with accepted:
            accepted.settimeout(30)
            assert accepted.recv(100) == b"question"
            accepted.sendall(b"answer")
            assert client.recv(100) == b"answer"
