"""Files on a shared filesystem: written beside and renamed, read with retry, claimed by exactly one."""

import errno
import json
import os
import time
from pathlib import Path
from typing import Any

import msgspec

from .errors import RunDirectoryError

# NFS serves a stale handle for a moment after another client has replaced a file.
_TRANSIENT = {errno.ESTALE, errno.EIO, errno.EBUSY}
_READ_ATTEMPTS = 5
_RETRY_DELAY_S = 0.05


def write_atomic(path: Path, text: str, *, mode: int = 0o644) -> None:
    """Replace `path` by `text` so that no reader ever sees half of it. Raises RunDirectoryError."""
    beside = _beside(path)
    try:
        _write(beside, text, mode)
        os.replace(beside, path)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise RunDirectoryError(f"cannot write {path}: {error.strerror}") from error


def claim(path: Path, text: str) -> bool:
    """Create `path` with `text` if it does not exist; False if it does. Atomic on NFS too (link, not O_EXCL)."""
    beside = _beside(path)
    try:
        _write(beside, text, 0o644)
        os.link(beside, path)
    except FileExistsError:
        return False
    except OSError as error:
        raise RunDirectoryError(f"cannot write {path}: {error.strerror}") from error
    finally:
        beside.unlink(missing_ok=True)
    return True


def make_directory(path: Path) -> None:
    """Make `path` and what is above it, if it is not there. Raises RunDirectoryError."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunDirectoryError(f"cannot make {path}: {error.strerror}") from error


def read_text(path: Path) -> str | None:
    """The file's text, or None if there is none. Retries what NFS gets wrong for a moment."""
    for attempt in range(_READ_ATTEMPTS):
        try:
            return path.read_text()
        except FileNotFoundError:
            return None
        except UnicodeDecodeError as error:
            raise RunDirectoryError(f"{path} is not text: {error}") from error
        except OSError as error:
            if error.errno not in _TRANSIENT or attempt == _READ_ATTEMPTS - 1:
                raise RunDirectoryError(f"cannot read {path}: {error.strerror}") from error
            time.sleep(_RETRY_DELAY_S * 2**attempt)
    raise AssertionError("unreachable")


def read_json(path: Path) -> Any:
    """The file's JSON value, or None if there is no file. Raises RunDirectoryError if it is not JSON."""
    text = read_text(path)
    if text is None:
        return None
    try:
        return json.loads(text)
    except ValueError as error:
        raise RunDirectoryError(f"{path} is not JSON: {error}") from error


def encode_json(value: Any) -> str:
    """A value that msgspec can encode, as indented JSON with a newline at the end."""
    return msgspec.json.format(msgspec.json.encode(value), indent=2).decode() + "\n"


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.uname().nodename}.{os.getpid()}")


def _write(path: Path, text: str, mode: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(descriptor, "w") as file:
        os.fchmod(descriptor, mode)
        file.write(text)
        file.flush()
        os.fsync(descriptor)
