"""Whose process is at the other end of a connection on this machine."""

import os
import socket
import subprocess
from collections.abc import Iterator

import pytest

from slurminfer.core.net.peer_user import PeerUsers


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


@pytest.fixture
def users() -> Iterator[PeerUsers]:
    users = PeerUsers()
    yield users
    users.close()


def test_own_connections_are_known(listener, users):
    with socket.create_connection(listener.getsockname()), listener.accept()[0] as accepted:
        assert users.uid(accepted) == os.geteuid()
        assert not users.is_strangers(accepted)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become another user")
def test_another_user_is_a_stranger(listener, users):
    port = listener.getsockname()[1]
    script = f"exec 3<>/dev/tcp/127.0.0.1/{port}; read line <&3"
    become = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "bash", "-c", script]
    with subprocess.Popen(become), listener.accept()[0] as accepted:
        assert users.uid(accepted) == 65534
        assert users.is_strangers(accepted)


def test_who_is_not_known_is_no_stranger(listener, users):
    with socket.create_connection(listener.getsockname()), listener.accept()[0] as accepted:
        users.close()
        assert users.uid(accepted) is None
        assert not users.is_strangers(accepted)


def test_a_connection_that_is_gone_is_nobodys(listener, users):
    class Gone:
        def getsockname(self) -> tuple[str, int]:
            return listener.getsockname()

        def getpeername(self) -> tuple[str, int]:
            return ("127.0.0.1", 1)

    assert users.uid(Gone()) is None
