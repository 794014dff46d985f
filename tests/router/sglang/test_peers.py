"""Whose process is at the other end of a TCP connection."""

import os
import shutil
import socket
import subprocess
import sys

import pytest

from slurminfer.router.sglang.peers import is_own_client, is_own_listener, is_own_server

_NOBODY = 65534
_CONNECT = "import socket, sys; s = socket.create_connection(('127.0.0.1', int(sys.argv[1]))); s.recv(1)"
_LISTEN = "import socket; s = socket.create_server(('127.0.0.1', 0)); print(s.getsockname()[1], flush=True); s.accept()"


def test_ones_own():
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as client,
    ):
        assert is_own_server(client)
        accepted, _ = server.accept()
        with accepted:
            assert is_own_client(accepted) and is_own_server(client)
        assert is_own_listener(server.getsockname())


def test_a_connection_that_has_ended_is_nobodys():
    ended = socket.socket()
    assert not is_own_client(ended) and not is_own_server(ended)
    ended.close()


def test_a_port_that_is_only_held():
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        assert not is_own_listener(held.getsockname())


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("setpriv") is None, reason="only root can be another user")
def test_another_users():
    with socket.create_server(("127.0.0.1", 0)) as server, as_nobody(_CONNECT, str(server.getsockname()[1])):
        accepted, _ = server.accept()
        with accepted:
            assert not is_own_client(accepted)
    with as_nobody(_LISTEN) as other:
        assert other.stdout is not None
        address = ("127.0.0.1", int(other.stdout.readline()))
        assert not is_own_listener(address)
        with socket.create_connection(address) as client:
            assert not is_own_server(client)


def as_nobody(program: str, *words: str) -> subprocess.Popen[str]:
    ids = [f"--reuid={_NOBODY}", f"--regid={_NOBODY}", "--clear-groups"]
    python = os.path.realpath(sys.executable)
    return subprocess.Popen(["setpriv", *ids, python, "-c", program, *words], stdout=subprocess.PIPE, text=True)
