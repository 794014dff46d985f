"""Where an engine listens: a port, a Unix socket of its owner, or both."""

import socket
import stat
from pathlib import Path

import pytest

from slurminfer.core.errors import EngineError, UsageError
from slurminfer.nodes.native.listeners import bind_unix, listening, urls
from slurminfer.nodes.native.options import DEFAULT_PORT, ServerOptions


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "private"
    path.mkdir(mode=0o700)
    return path


def test_a_unix_socket_takes_the_place_of_the_default_port():
    assert ServerOptions().tcp_port == DEFAULT_PORT
    assert ServerOptions(uds=Path("x")).tcp_port is None
    assert ServerOptions(uds=Path("x"), port=0).tcp_port == 0


@pytest.mark.parametrize("port", [-1, 65536])
def test_a_port_that_cannot_be_is_refused(port):
    with pytest.raises(UsageError, match=f"port = {port}: expected 0 to 65535"):
        ServerOptions(port=port)


def test_a_unix_socket_is_its_owners_and_goes_when_it_is_closed(folder):
    path = folder / "s"
    with listening(ServerOptions(uds=path)) as [listener]:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert urls([listener]) == f"unix:{path}"
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
    assert not path.exists()


def test_both_are_opened_where_both_are_named(folder):
    with listening(ServerOptions(uds=folder / "s", port=0)) as listeners:
        assert [listener.family for listener in listeners] == [socket.AF_UNIX, socket.AF_INET]
        assert urls(listeners).startswith(f"unix:{folder / 's'} and http://127.0.0.1:")


def test_the_socket_of_a_dead_process_is_replaced_and_that_of_a_living_one_is_not(folder):
    path = folder / "s"
    first = bind_unix(path)
    with pytest.raises(EngineError, match="another process listens there"):
        bind_unix(path)
    first.close()
    assert path.exists()
    with listening(ServerOptions(uds=path)):
        pass
    assert not path.exists()


def test_a_socket_that_another_process_has_put_there_is_left(folder):
    path = folder / "s"
    with listening(ServerOptions(uds=path)):
        path.unlink()
        successor = bind_unix(path)
    assert path.is_socket()
    successor.close()


@pytest.mark.parametrize("mode", [0o750, 0o701, 0o777])
def test_a_folder_that_others_can_enter_is_refused(folder, mode):
    folder.chmod(mode)
    with pytest.raises(EngineError, match=f"mode 0{mode:o} .* expected a folder of mode 0700"):
        bind_unix(folder / "s")


def test_a_missing_folder_a_file_in_the_way_and_a_long_path_are_refused(folder):
    with pytest.raises(EngineError, match="No such file"):
        bind_unix(folder / "none" / "s")
    (folder / "file").write_text("precious")
    (folder / "link").symlink_to(folder / "file")
    for name in ("file", "link"):
        with pytest.raises(EngineError, match="exists and is no socket"):
            bind_unix(folder / name)
    assert (folder / "file").read_text() == "precious"
    with pytest.raises(EngineError, match="at most 107 bytes"):
        bind_unix(folder / ("x" * 108))
