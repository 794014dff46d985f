"""Files of the output: written beside their place, put on the disk, renamed. Nothing half is seen or left behind."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pyarrow as pa

from ....core.errors import BatchError

_BUFFER_BYTES = 1 << 18


@contextmanager
def sink(path: Path, compression: str | None = None) -> Iterator[pa.NativeFile]:
    """A stream whose bytes become the file `path` at the end of the block, or nothing if it raises. Raises BatchError.

    Several processes may write the same file at once; one of them is the last.
    """
    beside = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    try:
        with _stream(beside, compression) as stream:
            yield stream
        with suppress(FileNotFoundError):  # another process has finished all files, this one too, and cleaned up
            _put_on_disk(beside)
            beside.replace(path)
        if not path.exists():
            raise BatchError(f"cannot write {path}: it was removed while it was written")
        _put_on_disk(path.parent)
    except (OSError, pa.ArrowException) as error:
        raise _failed(path, error) from error
    finally:
        beside.unlink(missing_ok=True)


def remove_leftovers(path: Path) -> None:
    """Remove what killed processes have left of a file, or of any file of a folder, that is written now."""
    folder, pattern = (path, ".part-*.tmp") if path.is_dir() else (path.parent, f".{path.name}.*.tmp")
    for left in folder.glob(pattern):
        with suppress(OSError):
            left.unlink()


@contextmanager
def _stream(path: Path, compression: str | None) -> Iterator[pa.NativeFile]:
    # Buffered by Python: a raw file writes less than it was given when the disk is full, and pyarrow does not see it.
    with path.open("wb", buffering=_BUFFER_BYTES) as file, pa.PythonFile(file, mode="w") as plain:
        if compression is None:
            yield plain
        else:
            with pa.CompressedOutputStream(plain, compression) as compressed:
                yield compressed


def _put_on_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _failed(path: Path, error: Exception) -> BatchError:
    reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
    return BatchError(
        f"cannot write {path}: {reason}; nothing of it is left behind, and what was computed is safe in the ledger: "
        f"mend that and start the same command again"
    )
