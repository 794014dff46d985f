"""Locks hold against every other open file, end with their process, and tell where there are none."""

import errno
import fcntl
import os
import subprocess
import sys
import threading

import pytest

from slurminfer.core.locks import Lock, try_lock, try_share, wait_lock

HOLDER = """
import sys
from slurminfer.core.locks import try_lock
file = open(sys.argv[1], "a")
print(try_lock(file).value, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "file"
    path.write_text("content")
    return path


def test_one_open_file_holds_it_until_it_is_closed(path):
    with path.open("a") as one, path.open("a") as other:
        assert [try_lock(one), try_lock(other)] == [Lock.HELD, Lock.BUSY]
        one.close()
        assert try_lock(other) is Lock.HELD
    assert path.read_text() == "content"


def test_a_shared_lock_is_for_many_and_against_who_wants_it_alone(path):
    with path.open("a") as one, path.open("a") as other, path.open("a") as third:
        assert [try_share(one), try_share(other), try_lock(third)] == [Lock.HELD, Lock.HELD, Lock.BUSY]
        other.close()
        assert [try_lock(one), try_share(third)] == [Lock.HELD, Lock.BUSY]
        assert [try_share(one), try_share(third)] == [Lock.HELD, Lock.HELD]


def test_every_name_of_a_file_means_the_same_lock(path, tmp_path):
    (tmp_path / "link").symlink_to(path)
    with path.open("a") as one, (tmp_path / "link").open("a") as other:
        assert [try_lock(one), try_lock(other.fileno())] == [Lock.HELD, Lock.BUSY]


def test_a_killed_process_holds_it_no_longer(path):
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None and holder.stdout.readline() == "held\n"
    with path.open("a") as file:
        assert try_lock(file) is Lock.BUSY
        holder.kill()
        holder.communicate()
        assert try_lock(file) is Lock.HELD


def test_waiting_ends_when_the_holder_closes(path):
    with path.open("a") as one, path.open("a") as other:
        try_lock(one)
        found = []
        waiting = threading.Thread(target=lambda: found.append(wait_lock(other)))
        waiting.start()
        waiting.join(0.1)
        assert waiting.is_alive() and not found
        fcntl.flock(one, fcntl.LOCK_UN)
        waiting.join(10)
        assert found == [Lock.HELD]


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP], ids=errno.errorcode.get)
@pytest.mark.parametrize("lock", [try_lock, wait_lock])
def test_a_filesystem_without_locks_is_told(path, monkeypatch, lock, code):
    _refuse(monkeypatch, code)
    with path.open("a") as file:
        assert lock(file) is Lock.UNSUPPORTED


def test_what_else_goes_wrong_is_raised(path, monkeypatch):
    _refuse(monkeypatch, errno.EIO)
    with path.open("a") as file, pytest.raises(OSError, match="Input/output error"):
        try_lock(file)


def _refuse(monkeypatch, code):
    def flock(file, operation):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", flock)
