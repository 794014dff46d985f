"""Which local port a tunnel has."""

import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from slurminfer.core.errors import RunDirectoryError, TunnelError
from slurminfer.jobs.tunnel.port import kept_port, likely_port, open_port


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SLURMINFER_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def taken() -> Iterator[socket.socket]:
    """Another program's listener."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


def opened(name: str = "cpu", login: str | None = None, given: int | None = None) -> int:
    with open_port(name, login, given) as listener:
        port: int = listener.getsockname()[1]
        return port


def test_a_tunnel_has_the_same_port_each_time():
    first = opened()
    assert 20_000 <= first < 30_000
    assert opened() == first == kept_port("cpu", None)


def test_what_is_taken_at_first_is_passed_over_and_the_next_one_kept():
    likely = likely_port("cpu", "me@login")
    with socket.create_server(("127.0.0.1", likely)):
        other = opened(login="me@login")
    assert other != likely
    assert opened(login="me@login") == other == likely_port("cpu", "me@login")


def test_tunnels_through_different_login_nodes_are_different():
    ports = {likely_port("cpu", login) for login in (None, "me@login", "me@login:2222", "you@login")}
    assert len(ports) == 4


def test_a_given_port_is_taken_and_not_kept(taken):
    port = taken.getsockname()[1]
    taken.close()
    assert opened(given=port) == port
    assert kept_port("cpu", None) is None


def test_a_port_that_is_taken_is_named_with_its_owner_and_the_option(taken, home):
    port = taken.getsockname()[1]
    with pytest.raises(TunnelError, match=rf"--port {port}: it is taken by pid {os.getpid()} \("):
        opened(given=port)
    (home / "tunnels").mkdir(parents=True, mode=0o700)
    record = home / "tunnels" / "cpu"
    record.write_text(json.dumps({"version": 1, "port": port}), encoding="utf-8")
    record.chmod(0o600)
    with pytest.raises(TunnelError, match=rf"port {port}, which the tunnel to 'cpu' has had before.*--port"):
        opened()
    record.write_text("{}", encoding="utf-8")
    with pytest.raises(RunDirectoryError, match="is not a tunnel's port"):
        opened()
