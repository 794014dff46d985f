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
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from ..core.errors import ModelError
from ..core.locks import Lock, try_lock, wait_lock
from ..core.paths import models_root
from ..core.trust import PRIVATE_FILE, make_private_folder
from .progress import Progress

_TEMPORARY, _LOCK = ".tmp-", ".lock-"
_TAKEN = (errno.ENOTEMPTY, errno.EEXIST)


def make_once(name: str, make: Callable[[Path], None], progress: Progress) -> Path:
    """The directory `name` of the cache; if it is not there, `make` fills an empty directory that then becomes it.

    Raises ModelError where the cache cannot be written, and whatever `make` raises; then nothing is left behind.
    """
    final = models_root() / name
    if final.is_dir():
        return final
    try:
        make_private_folder(models_root())
        _sweep()
        with _locked(name, progress):
            if not final.is_dir():
                _make(final, make)
    except OSError as error:
        raise ModelError(f"cannot write model {name} into {models_root()}: {error.strerror or error}") from error
    return final


def _make(final: Path, make: Callable[[Path], None]) -> None:
    temporary = final.with_name(f"{_TEMPORARY}{final.name}@{os.uname().nodename}.{os.getpid()}")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
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
