"""Files of ours: closed to others whatever the umask, and believed only if nobody else can have written them."""

import os
import socket
import stat
from concurrent.futures import ThreadPoolExecutor

import pytest

from slurminfer.core import files
from slurminfer.core.errors import DamagedFileError, RunDirectoryError


@pytest.fixture(params=[0o000, 0o002, 0o022, 0o077], ids=oct)
def umask(request):
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def mode(path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_what_is_ours_is_closed_whatever_the_umask(tmp_path, umask):
    folder = tmp_path / "a/b"
    files.make_directory(folder)
    files.write_atomic(folder / "written", "x")
    assert files.claim(folder / "claimed", "x")
    assert mode(tmp_path / "a") == mode(folder) == 0o700
    assert mode(folder / "written") == mode(folder / "claimed") == 0o600


def test_a_users_own_output_has_the_users_umask(tmp_path, umask):
    files.write_atomic(tmp_path / "result.json", "x", mode=None)
    assert mode(tmp_path / "result.json") == 0o666 & ~umask


def test_the_umask_is_put_back(umask):
    with pytest.raises(KeyError), files.private_umask():
        assert files.current_umask() == 0o077
        raise KeyError
    assert files.current_umask() == umask


def test_a_link_that_waits_where_a_file_is_written_beside_is_not_followed(tmp_path):
    target = tmp_path / "precious"
    target.write_text("old")
    files._beside(tmp_path / "record").symlink_to(target)
    files.write_atomic(tmp_path / "record", "new")
    assert target.read_text() == "old"
    assert (tmp_path / "record").read_text() == "new"


@pytest.mark.parametrize("write", [files.write_atomic, files.claim])
def test_threads_write_the_same_file(tmp_path, monkeypatch, write):
    """One is in the middle of it when the other one begins and ends."""
    path, other = tmp_path / "record", ThreadPoolExecutor(1)
    name = "link" if write is files.claim else "replace"
    call = getattr(os, name)

    def late(beside, place):
        monkeypatch.setattr(os, name, call)
        other.submit(write, path, "theirs").result()
        call(beside, place)

    monkeypatch.setattr(os, name, late)
    assert write(path, "mine") is (False if write is files.claim else None)
    assert path.read_text() == ("theirs" if write is files.claim else "mine")
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("bits", [0o620, 0o602, 0o666])
def test_a_file_that_others_may_write_is_not_believed(tmp_path, bits):
    path = tmp_path / "record"
    path.write_text("{}")
    path.chmod(bits)
    with pytest.raises(RunDirectoryError, match=r"record may be written by others .*chmod go-w"):
        files.read_private(path)


def test_nor_is_one_in_a_folder_that_others_may_write(tmp_path):
    files.write_atomic(tmp_path / "record", "{}")
    tmp_path.chmod(0o770)
    with pytest.raises(RunDirectoryError, match="may be written by others"):
        files.read_private(tmp_path / "record")


@pytest.mark.skipif(os.geteuid() != 0, reason="giving a file away needs root")
def test_nor_is_one_of_another_user(tmp_path, monkeypatch):
    path = tmp_path / "record"
    files.write_atomic(path, "{}")
    os.chown(path, 4242, 4242)
    with pytest.raises(RunDirectoryError, match="owned by uid 4242"):
        files.read_private(path)
    monkeypatch.setenv("SLURMINFER_TRUSTED_OWNERS", "4242")
    assert files.read_private(path) == "{}"


def test_what_is_no_file_is_an_error_at_once(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("record")
    files.write_atomic(tmp_path / "record", "{}")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "socket"))
        for name in ("fifo", "folder", "link", "socket"):
            with pytest.raises(RunDirectoryError, match=name):
                files.read_private(tmp_path / name)
    for name in ("fifo", "folder"):
        with pytest.raises(RunDirectoryError, match="no regular file"):
            files.read_text(tmp_path / name)
    assert files.read_text(tmp_path / "link") == "{}", "whoever reads a user's file may be sent elsewhere by him"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"[" * 100_000, "nested too deeply"),
        (b"\xff\xfe", "not text"),
        (b"{", "not JSON"),
        (b" " * (1 << 20) + b"1", "more than 1048576 bytes"),
        (b"9" * 10_000, "not JSON"),
    ],
    ids=["deep", "bytes", "torn", "large", "digits"],
)
def test_a_damaged_file_is_an_error_with_its_path(tmp_path, text, said):
    (tmp_path / "record").write_bytes(text)
    with pytest.raises(RunDirectoryError, match=rf"record .*{said}"):
        files.read_json(tmp_path / "record")


def test_a_loose_folder_of_ours_is_closed(tmp_path):
    tmp_path.chmod(0o775)
    files.close_to_others(tmp_path)
    assert mode(tmp_path) == 0o700


@pytest.mark.skipif(os.geteuid() != 0, reason="giving a folder away needs root")
def test_a_folder_of_another_user_is_refused_or_if_he_is_trusted_must_be_closed(tmp_path, monkeypatch):
    folder = tmp_path / "run"
    folder.mkdir()
    folder.chmod(0o775)
    os.chown(folder, 4242, 4242)
    with pytest.raises(RunDirectoryError, match="run is owned by uid 4242: expected"):
        files.close_to_others(folder)
    monkeypatch.setenv("SLURMINFER_TRUSTED_OWNERS", "4242")
    with pytest.raises(RunDirectoryError, match="chmod go-w"):
        files.close_to_others(folder)
    folder.chmod(0o755)
    files.close_to_others(folder)


@pytest.mark.parametrize("number", ["NaN", "-Infinity", "1e999"])
def test_what_is_no_number_is_no_json(tmp_path, number):
    with pytest.raises(DamagedFileError, match=r"is not JSON: .* is no number"):
        files.parse_json(tmp_path / "record", f'{{"at": {number}}}')
