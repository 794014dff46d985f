"""Files on a shared filesystem: written beside and renamed, read with retry, claimed by exactly one.

What is written here is for its owner alone (mode 0600 in folders of 0700, whatever the umask), unless the caller says
that it is a user's own output.
"""

import errno
import json
import math
import os
import shutil
import stat
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Protocol, TypeVar

import msgspec

from .errors import DamagedFileError, RunDirectoryError, UntrustedFileError
from .processes.process_id import pid_namespace
from .trust import OTHERS_RIGHTS, PRIVATE_FILE, PRIVATE_FOLDER, check_status, make_private_folder, open_trusted

# NFS serves a stale handle for a moment after another client has replaced a file.
_TRANSIENT = {errno.ESTALE, errno.EIO, errno.EBUSY}
_READ_ATTEMPTS = 5
_RETRY_DELAY_S = 0.05
MOST_BYTES = 1 << 20  # of one of our own files; records have some hundred
_AS_UMASK_SAYS = 0o666


class Versioned(Protocol):
    """What a file of ours has, in a layout with a number."""

    @property
    def version(self) -> int:
        """The number of the layout."""


_Versioned = TypeVar("_Versioned", bound=Versioned)


def write_atomic(path: Path, text: str, *, mode: int | None = PRIVATE_FILE) -> None:
    """Replace `path` by `text` so that no reader ever sees half of it. Raises RunDirectoryError.

    Args:
        path: of the file; its folder must be there.
        text: written as UTF-8.
        mode: of the file. None: what the user's umask leaves, for files that a user has asked for.
    """
    beside = _beside(path)
    try:
        _write(beside, text, mode)
        os.replace(beside, path)
    except OSError as error:
        _remove(beside)
        raise RunDirectoryError(f"cannot write {path}: {error.strerror}") from error


def restore(path: Path, text: str) -> None:
    """Replace `path` by `text` unless it has that already, as a file of ours. Raises RunDirectoryError."""
    try:
        if read_private(path) == text:
            return
    except DamagedFileError:
        pass
    write_atomic(path, text)


def claim(path: Path, text: str) -> bool:
    """Create `path` with `text` if it does not exist; False if it does. Atomic on NFS too (link, not O_EXCL)."""
    beside = _beside(path)
    try:
        _write(beside, text, PRIVATE_FILE)
        os.link(beside, path)
    except FileExistsError:
        return False
    except OSError as error:
        raise RunDirectoryError(f"cannot write {path}: {error.strerror}") from error
    finally:
        _remove(beside)
    return True


def remove(path: Path) -> None:
    """Remove what is at `path`, a folder with all that is in it, if anything is there. Raises RunDirectoryError."""
    try:
        path.unlink(missing_ok=True)
    except IsADirectoryError:
        _remove_folder(path)
    except OSError as error:
        raise RunDirectoryError(f"cannot remove {path}: {error.strerror}") from error


def make_directory(path: Path) -> None:
    """Make `path` and what is above it, if it is not there, for its owner alone. Raises RunDirectoryError."""
    try:
        make_private_folder(path)
    except OSError as error:
        raise RunDirectoryError(f"cannot make {path}: {error.strerror}") from error


def close_to_others(path: Path) -> None:
    """Take all rights of group and others from a file or folder of this user; a symbolic link is left as it is.

    Raises RunDirectoryError for one that another user owns and that others may write, or whom nobody trusts.
    """
    try:
        status = os.lstat(path)
        if stat.S_ISLNK(status.st_mode):
            return
        if status.st_uid == os.geteuid():
            if status.st_mode & OTHERS_RIGHTS:
                path.chmod(stat.S_IMODE(status.st_mode) & PRIVATE_FOLDER)
            return
    except OSError as error:
        raise RunDirectoryError(f"cannot close {path} to others: {error.strerror}") from error
    try:
        check_status(path, status)
    except UntrustedFileError as error:
        raise RunDirectoryError(str(error)) from error


@contextmanager
def private_umask() -> Iterator[None]:
    """Let what is made in here, and by programs that are started in here, be for this user alone."""
    before = os.umask(OTHERS_RIGHTS)
    try:
        yield
    finally:
        os.umask(before)


def current_umask() -> int:
    """The umask of this process."""
    umask = os.umask(OTHERS_RIGHTS)  # the only way to ask for it is to set it
    os.umask(umask)
    return umask


def read_text(path: Path) -> str | None:
    """A file's text, or None if there is none, whoever wrote it. Retries what NFS gets wrong for a moment.

    Raises RunDirectoryError for what cannot be read, is no regular file, or no UTF-8.
    """
    return _read(path, _open_regular, None)


def read_private(path: Path, *, most_bytes: int = MOST_BYTES) -> str | None:
    """The text of a file of ours, or None if there is none: nobody but this user, root or a trusted owner wrote it.

    Raises RunDirectoryError as `read_text`, and DamagedFileError for a file of somebody else or one that others may
    write (core/trust.py), a symbolic link, or more than `most_bytes`.
    """
    return _read(path, open_trusted, most_bytes)


def version_of(path: Path) -> tuple[int, int, int, int] | None:
    """What tells one version of a file of ours from another; None: there is no file. Raises RunDirectoryError.

    By opening it: NFS looks for a new version of a file at every open, while its answer to stat may be seconds old.
    """
    try:
        with open_trusted(path) as file:
            status = os.fstat(file.fileno())
    except FileNotFoundError:
        return None
    except UntrustedFileError as error:
        raise RunDirectoryError(str(error)) from error
    except OSError as error:
        raise RunDirectoryError(f"cannot read {path}: {error.strerror}") from error
    return status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino


def read_json(path: Path, *, most_bytes: int = MOST_BYTES) -> Any:
    """The JSON value of a file of ours, or None if there is no file. Raises RunDirectoryError as `read_private`."""
    text = read_private(path, most_bytes=most_bytes)
    return None if text is None else parse_json(path, text)


def parse_json(path: Path, text: str) -> Any:
    """The JSON value of a text that `path` has. Raises DamagedFileError if it is not JSON, or nested too deeply."""
    try:
        return json.loads(text, parse_constant=_finite, parse_float=_finite)
    except ValueError as error:
        raise DamagedFileError(f"{path} is not JSON: {error}") from error
    except RecursionError as error:
        raise DamagedFileError(f"{path} is nested too deeply") from error


def _finite(number: str) -> float:
    """A number without NaN and infinities, which Python's json takes: whatever is computed from one is one too."""
    found = float(number)
    if not math.isfinite(found):
        raise ValueError(f"{number} is no number")
    return found


def parse_versioned(path: Path, text: str, shape: type[_Versioned], version: int, *, what: str) -> _Versioned:
    """The struct of `shape` in a text that `path` has as JSON.

    Raises DamagedFileError, which says that it is no `what`, or has another version than `version`.
    """
    try:
        found = msgspec.json.decode(text, type=shape)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise DamagedFileError(f"{path} is not a {what}: {error}") from error
    if found.version != version:
        raise DamagedFileError(f"{path} has layout {found.version}: expected {version}")
    return found


def encode_json(value: Any) -> str:
    """A value that msgspec can encode, as indented JSON with a newline at the end."""
    return msgspec.json.format(msgspec.json.encode(value), indent=2).decode() + "\n"


def _read(path: Path, open_file: Callable[[Path], BinaryIO], most_bytes: int | None) -> str | None:
    for attempt in range(_READ_ATTEMPTS):
        try:
            with open_file(path) as file:
                data = file.read(-1 if most_bytes is None else most_bytes + 1)
            if most_bytes is not None and len(data) > most_bytes:
                raise DamagedFileError(f"{path} has more than {most_bytes} bytes")
            return data.decode("utf-8")
        except FileNotFoundError:
            return None
        except UntrustedFileError as error:
            raise DamagedFileError(str(error)) from error
        except UnicodeDecodeError as error:
            raise DamagedFileError(f"{path} is not text: {error}") from error
        except OSError as error:
            if error.errno not in _TRANSIENT or attempt == _READ_ATTEMPTS - 1:
                raise RunDirectoryError(f"cannot read {path}: {error.strerror}") from error
            time.sleep(_RETRY_DELAY_S * 2**attempt)
    raise AssertionError("unreachable")


def _open_regular(path: Path) -> BinaryIO:
    """Open a file to read it, without waiting where it is a FIFO. Raises OSError, RunDirectoryError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise RunDirectoryError(f"{path} is no regular file")
    return os.fdopen(descriptor, "rb")


def _beside(path: Path) -> Path:
    """A name of this thread's own: threads write the same file, and in containers processes have the same numbers."""
    return path.with_name(f".{path.name}.{os.uname().nodename}.{pid_namespace()}.{threading.get_native_id()}")


def _write(path: Path, text: str, mode: int | None) -> None:
    _remove(path)  # left by a process of the same number that was killed
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(path, flags, _AS_UMASK_SAYS if mode is None else mode)
    with os.fdopen(descriptor, "wb") as file:
        if mode is not None:
            os.fchmod(descriptor, mode)
        file.write(text.encode("utf-8"))
        file.flush()
        os.fsync(descriptor)


def _remove_folder(path: Path) -> None:
    try:
        shutil.rmtree(path)
    except OSError as error:
        raise RunDirectoryError(f"cannot remove {path}: {error.strerror}") from error


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError:
        return  # if the name is needed again, that operation fails with the reason
