"""A file that grows by whole lines, whatever happens to its disk."""

import os
import stat
from contextlib import suppress
from pathlib import Path

from ....core.errors import BatchError


class RemovedError(BatchError):
    """The file is not there any more under its name."""


class AppendedFile:
    """A regular file, opened for appending and created if it is not there. All methods raise BatchError."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            # O_NONBLOCK: a FIFO would have us wait. It means nothing for a regular file.
            self.descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NONBLOCK | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise BatchError(f"cannot write {path}: {error.strerror}") from error
        if not stat.S_ISREG(os.fstat(self.descriptor).st_mode):
            self.close()
            raise BatchError(f"cannot write {path}: not a regular file")
        self.size = os.fstat(self.descriptor).st_size
        self._is_torn = False

    def close(self) -> None:
        """Close the file."""
        with suppress(OSError):  # NFS tells here what `sync` has told before
            os.close(self.descriptor)

    def append(self, line: bytes) -> None:
        """Write a line, newline included: all of it, or nothing. It survives this process, and from `sync` a crash."""
        try:
            if self._is_torn:
                self._cut()
            self._is_torn = True
            _write_all(self.descriptor, line)
            self._is_torn = False
        except OSError as error:
            with suppress(OSError):
                self._cut()
            raise self._failed(error) from error
        self.size += len(line)

    def sync(self) -> None:
        """Have everything on the disk, and see that it is still there under its name. May wait for the disk."""
        expected = self.size  # lines may be appended meanwhile, by another thread
        try:
            os.fsync(self.descriptor)
            own = os.fstat(self.descriptor)
            there = os.stat(self.path)
        except FileNotFoundError as error:
            raise RemovedError(
                f"{self.path} was removed or renamed while it was written; start the batch again"
            ) from error
        except OSError as error:
            raise self._failed(error) from error
        if (own.st_dev, own.st_ino) != (there.st_dev, there.st_ino):
            raise BatchError(f"{self.path} was replaced by another file while it was written; start the batch again")
        if own.st_size < expected:
            raise BatchError(
                f"{self.path} was shortened by another program while it was written; start the batch again"
            )

    def _cut(self) -> None:
        os.ftruncate(self.descriptor, self.size)
        self._is_torn = False

    def _failed(self, error: OSError) -> BatchError:
        advice = "what is written so far is whole; mend that and start the same command again to go on"
        return BatchError(f"cannot write {self.path}: {error.strerror}; {advice}")


def _write_all(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]
