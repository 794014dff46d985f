"""Which files may be loaded, executed or believed: those that only this user, root or a named other owner can write.

Other users of a cluster share its machines and often a group. A file counts as trusted if it and the folder that it
lies in are owned by this user, by root or by an owner in `SLURMINFER_TRUSTED_OWNERS`, and if neither may be written by
group or others. POSIX ACLs that let somebody write show in the group's bits.
"""

import errno
import os
import pwd
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import BinaryIO

from .errors import UntrustedFileError, UsageError

TRUSTED_OWNERS = "SLURMINFER_TRUSTED_OWNERS"  # of the environment: names or uids, separated by commas or blanks
PRIVATE_FOLDER, PRIVATE_FILE = 0o700, 0o600
OTHERS_RIGHTS = 0o077  # of group and others: none is left in a private mode; as a umask, it leaves none
_UID_MAP, _OVERFLOW_UID = Path("/proc/self/uid_map"), Path("/proc/sys/kernel/overflowuid")
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


def trusted_owners(environ: Mapping[str, str] = os.environ) -> frozenset[int]:
    """The uids whose files may be loaded: this user's, root's, and those of `SLURMINFER_TRUSTED_OWNERS`.

    Raises UsageError for a name that no user has.
    """
    return frozenset({os.geteuid(), 0, *_uids_of(environ.get(TRUSTED_OWNERS, ""))})


def open_trusted(path: Path) -> BinaryIO:
    """Open a trusted file to read it: what was checked is what is open, whoever renames files meanwhile.

    Raises FileNotFoundError, OSError, UntrustedFileError (with who or what is wrong; a symbolic link and whatever is
    no regular file count as untrusted), UsageError for `SLURMINFER_TRUSTED_OWNERS`.
    """
    with _open_folder(path.parent) as folder:
        try:
            # Without O_NONBLOCK, opening a FIFO would wait for somebody who writes into it.
            file = os.open(path.name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise UntrustedFileError(f"{path} is a symbolic link, expected a file") from error
            error.filename = str(path)
            raise
    try:
        status = os.fstat(file)
        if not stat.S_ISREG(status.st_mode):
            raise UntrustedFileError(f"{path} is no regular file")
        check_status(path, status)
        return os.fdopen(file, "rb")
    except BaseException:
        os.close(file)
        raise


def require_trusted(path: Path) -> None:
    """Check a file that something else will open. Raises as `open_trusted`, which is safe against renaming too."""
    open_trusted(path).close()


def require_trusted_folder(path: Path) -> None:
    """Check a folder: whether what lies in it was put there by a trusted owner. Raises as `open_trusted`."""
    with _open_folder(path):
        pass


def require_kept_from_others(path: Path) -> None:
    """Check a folder in which others may make files, such as /tmp: whether they cannot rename or remove ours there.

    So it must be with every folder above it too. Raises OSError, UntrustedFileError.
    """
    path = path.resolve(strict=True)
    for folder in (path, *path.parents):
        status = folder.stat()
        if not _is_unmapped(status.st_uid):
            _check_owner(folder, status)
        if status.st_mode & _OTHERS_WRITE and not status.st_mode & stat.S_ISVTX:
            mode = f"{stat.S_IMODE(status.st_mode):04o}"
            raise UntrustedFileError(f"others may replace what is in {folder} (mode {mode}): expected chmod go-w or +t")


def make_private_folder(path: Path) -> None:
    """Make a folder of mode 0700, and those above it that are missing, whatever the umask.

    Of one that is there, group and others lose the right to write, if it is this user's. Raises OSError.
    """
    if not path.parent.exists():
        make_private_folder(path.parent)
    try:
        path.mkdir(PRIVATE_FOLDER)
        path.chmod(PRIVATE_FOLDER)
    except FileExistsError:
        status = path.stat()
        if not stat.S_ISDIR(status.st_mode):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path)) from None
        if status.st_mode & _OTHERS_WRITE and status.st_uid == os.geteuid():
            path.chmod(stat.S_IMODE(status.st_mode) & ~_OTHERS_WRITE)


@contextmanager
def _open_folder(path: Path) -> Iterator[int]:
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        check_status(path, os.fstat(folder))
        yield folder
    finally:
        os.close(folder)


def check_status(path: Path, status: os.stat_result) -> None:
    """Raise UntrustedFileError if by its `status` somebody else owns `path`, or may write it."""
    _check_owner(path, status)
    if status.st_mode & _OTHERS_WRITE:
        mode = f"{stat.S_IMODE(status.st_mode):04o}"
        raise UntrustedFileError(f"{path} may be written by others (mode {mode}): expected chmod go-w")


def _check_owner(path: Path, status: os.stat_result) -> None:
    if status.st_uid not in trusted_owners():
        us = " or ".join(dict.fromkeys((_name_of(os.geteuid()), "root")))
        expected = f"expected {us}, or an owner that {TRUSTED_OWNERS} names"
        raise UntrustedFileError(f"{path} is owned by {_name_of(status.st_uid)}: {expected}")


def _is_unmapped(uid: int) -> bool:
    """Whether the kernel shows so a user that this user namespace lacks, such as root in a rootless container."""
    ranges = [tuple(map(int, line.split())) for line in _UID_MAP.read_text(encoding="ascii").splitlines()]
    is_mapped = any(first <= uid < first + count for first, _, count in ranges)
    return not is_mapped and uid == int(_OVERFLOW_UID.read_text(encoding="ascii"))


@cache  # asked for every file; the names may be a directory server's to look up
def _uids_of(names: str) -> frozenset[int]:
    return frozenset(map(_uid_of, names.replace(",", " ").split()))


def _uid_of(word: str) -> int:
    if word.isascii() and word.isdigit():
        return int(word)
    try:
        return pwd.getpwnam(word).pw_uid
    except KeyError:
        expected = "expected names or uids of users, separated by commas"
        raise UsageError(f"{TRUSTED_OWNERS}: there is no user {word!r}; {expected}") from None


def _name_of(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"
