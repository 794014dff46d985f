"""Which files are loaded, by who owns them and who may write them, and that opening one never waits."""

import os
import stat

import pytest

from slurminfer.core.errors import UntrustedFileError, UsageError
from slurminfer.core.trust import (
    TRUSTED_OWNERS,
    make_private_folder,
    open_trusted,
    require_kept_from_others,
    require_trusted,
    require_trusted_folder,
    trusted_owners,
)

STRANGER = 65432  # a uid that no user has

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")


@pytest.fixture
def file(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir(mode=0o755)
    path = folder / "file"
    path.write_bytes(b"content")
    path.chmod(0o644)
    return path


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_a_file_that_only_we_write_is_opened(file):
    with open_trusted(file) as opened:
        assert opened.read() == b"content"
    require_trusted(file)
    require_trusted_folder(file.parent)


@pytest.mark.parametrize("bits", [0o664, 0o646, 0o666, 0o620])
def test_a_file_that_others_may_write_is_not(file, bits):
    file.chmod(bits)
    with pytest.raises(UntrustedFileError, match=rf"folder/file may be written by others \(mode {bits:04o}\)"):
        open_trusted(file)


@pytest.mark.parametrize("bits", [0o775, 0o1777, 0o702])
def test_nor_one_in_a_folder_that_others_may_write(file, bits):
    file.parent.chmod(bits)
    for check, path in ((require_trusted, file), (require_trusted_folder, file.parent)):
        with pytest.raises(UntrustedFileError, match=rf"folder may be written by others \(mode {bits:04o}\)"):
            check(path)


@as_root
@pytest.mark.parametrize("what", ["file", "folder"])
def test_somebody_elses_is_loaded_only_if_that_owner_is_named(file, what, monkeypatch):
    os.chown(file if what == "file" else file.parent, STRANGER, -1)
    with pytest.raises(UntrustedFileError, match=f"{what} is owned by uid {STRANGER}: expected root, or an owner"):
        require_trusted(file)
    monkeypatch.setenv(TRUSTED_OWNERS, f"daemon, {STRANGER}")
    require_trusted(file)
    file.chmod(0o664)  # which is no more right for being theirs
    with pytest.raises(UntrustedFileError, match="may be written by others"):
        require_trusted(file)


def test_owners_are_names_or_numbers():
    assert trusted_owners({}) == {os.geteuid(), 0}
    assert trusted_owners({TRUSTED_OWNERS: "root 12,13"}) == {os.geteuid(), 0, 12, 13}
    with pytest.raises(UsageError, match=f"{TRUSTED_OWNERS}: there is no user 'no-such-user'; expected names or uids"):
        trusted_owners({TRUSTED_OWNERS: "no-such-user"})


def test_what_is_no_file_is_refused_without_waiting(tmp_path):
    os.mkfifo(tmp_path / "fifo", 0o600)
    (tmp_path / "directory").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(__file__)
    for name, said in (("fifo", "no regular file"), ("directory", "no regular file"), ("link", "a symbolic link")):
        with pytest.raises(UntrustedFileError, match=f"{name} is {said}"):
            open_trusted(tmp_path / name)
    with pytest.raises(FileNotFoundError, match="nothing"):
        open_trusted(tmp_path / "nothing")


def test_folders_are_private_whatever_the_umask(tmp_path):
    before = os.umask(0)
    try:
        make_private_folder(tmp_path / "a" / "b")
    finally:
        os.umask(before)
    assert mode(tmp_path / "a") == mode(tmp_path / "a" / "b") == 0o700


def test_a_folder_that_is_there_is_only_taken_from_those_who_may_write(tmp_path):
    """Its owner may let others read it, as a shared cache."""
    for given, expected in ((0o777, 0o755), (0o750, 0o750), (0o775, 0o755)):
        tmp_path.chmod(given)
        make_private_folder(tmp_path)
        assert mode(tmp_path) == expected
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError):
        make_private_folder(tmp_path / "file")


def test_what_others_could_rename_is_not_kept_from_them(tmp_path):
    inner = tmp_path / "open" / "mine"
    inner.mkdir(parents=True)
    (tmp_path / "link").symlink_to(inner)
    inner.parent.chmod(0o1777)
    require_kept_from_others(inner)
    inner.parent.chmod(0o775)
    for path in (inner, tmp_path / "link"):
        with pytest.raises(UntrustedFileError, match=r"others may replace what is in .*/open \(mode 0775\)"):
            require_kept_from_others(path)


@as_root
def test_nor_is_what_lies_below_another_users_folder(tmp_path, monkeypatch):
    inner = tmp_path / "theirs" / "mine"
    inner.mkdir(parents=True)
    os.chown(inner.parent, STRANGER, STRANGER)
    with pytest.raises(UntrustedFileError, match="theirs is owned by uid 65432"):
        require_kept_from_others(inner)
    monkeypatch.setattr("slurminfer.core.trust._UID_MAP", uid_map := tmp_path / "uid_map")
    monkeypatch.setattr("slurminfer.core.trust._OVERFLOW_UID", overflow := tmp_path / "overflowuid")
    uid_map.write_text("         0       1000          1\n")
    overflow.write_text(f"{STRANGER}\n")
    require_kept_from_others(inner)  # in a container: the machine's root may be shown so
