"""Private folders: where they lie, and that those of killed processes do not stay for ever."""

import os
import stat
import tempfile
from pathlib import Path

import pytest

from slurminfer.core import private_folder as private
from slurminfer.core.locks import Lock, try_lock
from slurminfer.core.private_folder import private_folder
from slurminfer.core.trust import require_kept_from_others

LONG_AGO = (1.0, 1.0)


@pytest.fixture
def parent(monkeypatch):
    """A TMPDIR with a short path, as /tmp is."""
    with tempfile.TemporaryDirectory(prefix="parent-", dir="/tmp") as folder:
        monkeypatch.setattr(tempfile, "tempdir", folder)
        yield Path(folder)


def test_it_is_for_its_user_alone_and_goes_at_the_end(parent):
    with private_folder() as path:
        assert path.parent == parent
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
        (path / "file").touch()
    assert not path.exists()


def test_a_killed_processs_folder_is_removed_by_the_next_one(parent):
    leftover, young, other, alien = (
        parent / f"slurminfer-{name}" for name in ("aaaaaaa1", "aaaaaaa2", "x", "aaaaaaa3")
    )
    for folder in (leftover, young, other, alien):
        folder.mkdir(mode=0o700)
        (folder / ("owner.lock" if folder is not alien else "file")).touch()
        if folder is not young:
            os.utime(folder, LONG_AGO)
    with private_folder():
        assert not leftover.exists()
        assert young.exists()
        assert other.exists(), "of another name"
        assert alien.exists(), "not one of ours"


def test_a_living_processs_folder_stays(parent):
    with private_folder() as first:
        os.utime(first, LONG_AGO)
        with private_folder():
            assert first.exists()


def test_a_folder_that_is_open_to_others_or_a_link_is_left_alone(parent):
    target, link, shared = parent / "target", parent / "slurminfer-aaaaaaa1", parent / "slurminfer-aaaaaaa2"
    target.mkdir(mode=0o700)
    os.utime(target, LONG_AGO)
    link.symlink_to(target)
    shared.mkdir()
    shared.chmod(0o777)
    os.utime(shared, LONG_AGO)
    with private_folder():
        assert target.exists()
        assert link.is_symlink()
        assert shared.exists()


def test_where_others_could_replace_it_it_is_in_tmp(parent, monkeypatch, capsys):
    parent.chmod(0o777)
    monkeypatch.setattr(private, "_USUAL", usual := parent / "usual")
    usual.mkdir(mode=0o700)
    with private_folder() as path:
        assert path.parent == usual
    assert f"others may replace what is in {parent} (mode 0777)" in capsys.readouterr().out
    parent.chmod(0o1777)
    require_kept_from_others(parent)


def test_the_lock_is_gone_with_its_owner(parent):
    with private_folder() as path:
        descriptor = os.open(path / "owner.lock", os.O_RDONLY)
        assert try_lock(descriptor) is Lock.BUSY
    assert try_lock(descriptor) is Lock.HELD
    os.close(descriptor)
