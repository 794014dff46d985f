"""A batch's output file, which is its own ledger: what stands in it is done, and nothing else is."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from ....core.errors import BatchError
from ....core.locks import Lock, try_lock
from .appended import AppendedFile
from ..inputs.request import Id
from ..outputs.answers import RESULT_START, NotAResultError, id_of

_log = logging.getLogger(__name__)


class Ledger:
    """The results of one batch, appended line by line by one driver at a time.

    A line is written by one call and nothing is kept back, so a killed driver leaves at most one torn line, the last,
    which the next one cuts off. All methods raise BatchError; whatever was written before stays valid.
    """

    def __init__(self, path: Path) -> None:
        # Opened, not created anew: it is the file itself that is locked, so no lock file stays behind.
        self._file = AppendedFile(path)
        try:
            self._lock()
            with _deeper_nesting():
                self.finished, size = self._read()
            self._file.cut(size)
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._file.close()

    def append(self, line: bytes) -> None:
        """Write one result, newline included. It survives this process from here on, and the machine from `sync`."""
        self._file.append(line)

    def sync(self) -> None:
        """Have everything on the disk, and see that nobody has taken the file away. May wait for the disk."""
        self._file.sync()

    def _lock(self) -> None:
        try:
            lock = try_lock(self._file.descriptor)
        except OSError as error:
            raise BatchError(f"cannot lock {self._file.path}: {error.strerror}") from error
        if lock is Lock.BUSY:
            raise BatchError(f"another batch is writing {self._file.path}; wait for it or choose another output")
        if lock is Lock.UNSUPPORTED:
            _log.warning(
                "no locks on the filesystem of %s: see to it that no second batch writes there", self._file.path
            )

    def _read(self) -> tuple[set[Id], int]:
        """The ids that have results, and where their whole lines end."""
        finished: set[Id] = set()
        size = 0
        try:
            with self._file.path.open("rb") as file:
                for number, line in enumerate(file, start=1):
                    if not line.endswith(b"\n"):
                        self._check_torn(number, line)
                        break
                    finished.add(self._id(number, line))
                    size += len(line)
        except OSError as error:
            raise BatchError(f"cannot read {self._file.path}: {error.strerror}") from error
        return finished, size

    def _id(self, number: int, line: bytes) -> Id:
        try:
            return id_of(line)
        except NotAResultError as error:
            raise self._foreign(number) from error

    def _check_torn(self, number: int, line: bytes) -> None:
        if not (line.startswith(RESULT_START) or RESULT_START.startswith(line)):
            raise self._foreign(number)

    def _foreign(self, number: int) -> BatchError:
        return BatchError(f"{self._file.path}, line {number}: not a batch's result; choose another output")


@contextmanager
def _deeper_nesting() -> Iterator[None]:
    """Read what was written by a call that had more of the stack left: the limit of nested JSON is that of calls."""
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(2 * limit)
    try:
        yield
    finally:
        sys.setrecursionlimit(limit)


class ErrorLog:
    """`OUTPUT.errors.jsonl`: what went wrong this time; it begins anew, and is not there while nothing went wrong."""

    def __init__(self, output: Path) -> None:
        self.path = output.with_name(f"{output.name.removesuffix('.jsonl')}.errors.jsonl")
        self._file: AppendedFile | None = None
        try:
            self.path.unlink(missing_ok=True)
        except OSError as error:
            raise BatchError(f"cannot remove the old {self.path}: {error.strerror}") from error

    def append(self, line: bytes) -> None:
        """Write one error, newline included. Raises BatchError."""
        if self._file is None:
            self._file = AppendedFile(self.path)
        self._file.append(line)

    def close(self) -> None:
        """Close the file, if there is one."""
        if self._file is not None:
            self._file.close()
