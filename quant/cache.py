"""The user's cache of models: directories that are made once, whole or not at all, by any number of processes.

    NAME/                  a finished model: it got this name by one rename
    .tmp-NAME@HOST.PID/    one being made; left behind only by a process that was killed, and swept by the next one
    .lock-NAME             held (flock) by the process that makes NAME, so that others wait instead of doing it twice

Where the filesystem has no locks, two processes may do the work twice; the rename still lets exactly one of them win.
What killed processes left is not swept there, as it might be a living one's.
"""

import errno
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from ..core.errors import ModelError
from ..core.files import private_umask
from ..core.locks import Lock, try_lock, wait_lock
from ..core.paths import models_root
from ..core.trust import PRIVATE_FILE, PRIVATE_FOLDER, make_private_folder, require_trusted_folder
from .progress import Progress

_TEMPORARY, _LOCK = ".tmp-", ".lock-"
_TAKEN = (errno.ENOTEMPTY, errno.EEXIST)


def make_once(name: str, make: Callable[[Path], None], progress: Progress, required: Sequence[str] = ("*",)) -> Path:
    """The directory `name` of the cache; if it is not there, `make` fills an empty directory that then becomes it.

    One that lacks what is `required`, patterns of file names, is made anew: whoever cleans up a filesystem by the age
    of files leaves directories behind. Raises ModelError where the cache cannot be written, UntrustedFileError for an
    entry that others may have written, and whatever `make` raises; then nothing is left behind.
    """
    final = models_root() / name
    try:
        if _is_whole(final, required):
            return final
        make_private_folder(models_root())
        _sweep()
        with _locked(name, progress):
            if not _is_whole(final, required):
                _remove(final)
                _make(final, make)
    except OSError as error:
        raise ModelError(f"cannot write model {name} into {models_root()}: {error.strerror or error}") from error
    return final


def _is_whole(final: Path, required: Sequence[str]) -> bool:
    """Whether an entry is there with all that it must have. Raises UntrustedFileError, OSError."""
    if not final.is_dir():
        return False
    require_trusted_folder(final)
    return all(any(final.glob(pattern)) for pattern in required)


def _remove(entry: Path) -> None:
    if entry.is_dir() and not entry.is_symlink():
        shutil.rmtree(entry)
    else:
        entry.unlink(missing_ok=True)


def _make(final: Path, make: Callable[[Path], None]) -> None:
    temporary = final.with_name(f"{_TEMPORARY}{final.name}@{os.uname().nodename}.{os.getpid()}")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(PRIVATE_FOLDER)
    try:
        with private_umask():
            make(temporary)
        _sync(temporary)
        _rename(temporary, final)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    _sync_directory(final.parent)


def _rename(temporary: Path, final: Path) -> None:
    try:
        os.rename(temporary, final)
    except OSError as error:
        if error.errno not in _TAKEN:  # another process was first: its model is as good as ours
            raise


def _sync(directory: Path) -> None:
    for path in directory.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
    _sync_directory(directory)


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sweep() -> None:
    """Remove what killed processes left behind: temporary directories whose lock nobody holds."""
    for leftover in models_root().glob(f"{_TEMPORARY}*"):
        name = leftover.name.removeprefix(_TEMPORARY).rpartition("@")[0]
        with _open_lock(name) as file:
            if try_lock(file) is Lock.HELD:
                shutil.rmtree(leftover, ignore_errors=True)


@contextmanager
def _locked(name: str, progress: Progress) -> Iterator[None]:
    with _open_lock(name) as file:
        if try_lock(file) is Lock.BUSY:
            progress("wait for another process", 0, 0)
            wait_lock(file)
        yield


def _open_lock(name: str) -> IO[str]:
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW
    return os.fdopen(os.open(_lock_path(name), flags, PRIVATE_FILE), "a", encoding="utf-8")


def _lock_path(name: str) -> Path:
    return models_root() / f"{_LOCK}{name}"
