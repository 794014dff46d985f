"""A folder of a process that only its user can enter: for Unix sockets, and for what no process list may show.

A process that is killed cannot remove its folder. It holds a lock on a file in it as long as it lives, by which the
next one knows which folders nobody needs any more.
"""

import os
import re
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .errors import PrivateFolderError, UntrustedFileError
from .locks import Lock, try_lock
from .net.sockets import LONGEST_SOCKET_PATH
from .trust import PRIVATE_FILE, PRIVATE_FOLDER, require_kept_from_others

_PREFIX = "slurminfer-"
_NAME = re.compile(re.escape(_PREFIX) + r"[a-z0-9_]{8}")  # as tempfile makes them
_LOCK_NAME = "owner.lock"  # the folder itself is locked by engines that make a socket in it
_ROOM = len("/ssh.0123456789abcdef")  # for the longest name of a socket in it: ssh makes one of that form
_USUAL = Path("/tmp")
_LEFTOVER_S = 60.0  # old enough for a folder to be one whose owner has had the time to lock it


@contextmanager
def private_folder() -> Iterator[Path]:
    """A new folder of mode 0700 in TMPDIR; it is removed at the end.

    It is in /tmp where paths in TMPDIR are too long for Unix sockets, or where others could put something in its place.
    Raises PrivateFolderError where there is no such folder to be had.
    """
    parent = _parent()
    _sweep(parent)
    try:
        path = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
        held = os.open(path / _LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, PRIVATE_FILE)
    except OSError as error:
        raise _none(parent, error.strerror) from error
    try:
        with suppress(OSError):
            try_lock(held)
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
        os.close(held)


def _parent() -> Path:
    room = len(f"/{_PREFIX}12345678") + _ROOM
    given = Path(tempfile.gettempdir())
    if len(os.fsencode(given)) + room > LONGEST_SOCKET_PATH:
        given = _USUAL
    try:
        require_kept_from_others(given)
    except (OSError, UntrustedFileError) as error:
        if given == _USUAL:
            raise _none(given, error) from error
        print(f"TMPDIR is not used, but {_USUAL}: {error}", flush=True)
        return _USUAL
    return given


def sweep() -> None:
    """Remove the folders that killed processes of this user have left where `private_folder` makes them."""
    with suppress(PrivateFolderError):
        _sweep(_parent())


def _none(parent: Path, why: object) -> PrivateFolderError:
    reason = f"cannot make a folder for sockets in {parent}: {why}"
    return PrivateFolderError(f"{reason}; set TMPDIR to a local folder that you may write")


def _sweep(parent: Path) -> None:
    """Remove what killed processes of this user have left in `parent`."""
    with suppress(OSError), os.scandir(parent) as entries:
        for entry in entries:
            if _NAME.fullmatch(entry.name):
                with suppress(OSError):
                    _remove_leftover(Path(entry.path))


def _remove_leftover(path: Path) -> None:
    found = path.lstat()
    is_ours = stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid()
    is_old = time.time() - found.st_mtime > _LEFTOVER_S
    if is_ours and stat.S_IMODE(found.st_mode) == PRIVATE_FOLDER and is_old and not _is_locked(path / _LOCK_NAME):
        shutil.rmtree(path, ignore_errors=True)


def _is_locked(path: Path) -> bool:
    """Whether a process lives that has locked the file; also where the filesystem has no locks. Raises OSError."""
    descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        return try_lock(descriptor) is not Lock.HELD
    finally:
        os.close(descriptor)
