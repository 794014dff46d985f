"""A batch's output file, which is its own ledger: what stands in it is done, and nothing else is."""

import logging
import os
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from ...core.errors import BatchError
from ...core.locks import Lock, try_lock
from .inputs.request import Id
from .results import RESULT_START, id_of

_log = logging.getLogger(__name__)


class Ledger:
    """The results of one batch, appended line by line by one driver at a time.

    A line is written by one call and nothing is kept back, so a killed driver leaves at most one torn line, the last,
    which the next one cuts off. All methods raise BatchError; whatever was written before stays valid.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            # Opened, not created anew: it is the file itself that is locked, so no lock file stays behind.
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        except OSError as error:
            raise BatchError(f"cannot write {path}: {error.strerror}") from error
        try:
            self._lock()
            self.finished, self._size = self._read()
            os.ftruncate(self._file, self._size)
        except BaseException:
            os.close(self._file)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        os.close(self._file)

    def append(self, line: bytes) -> None:
        """Write one result, newline included. It survives this process from here on, and the machine from `sync`."""
        try:
            _write_all(self._file, line)
        except OSError as error:
            os.ftruncate(self._file, self._size)
            raise self._failed(error) from error
        self._size += len(line)

    def sync(self) -> None:
        """Have everything on the disk. May wait for it."""
        try:
            os.fsync(self._file)
        except OSError as error:
            raise self._failed(error) from error

    def _failed(self, error: OSError) -> BatchError:
        advice = "the results written so far are whole; make room and start the same command again"
        return BatchError(f"cannot write {self._path}: {error.strerror}; {advice}")

    def _lock(self) -> None:
        try:
            lock = try_lock(self._file)
        except OSError as error:
            raise BatchError(f"cannot lock {self._path}: {error.strerror}") from error
        if lock is Lock.BUSY:
            raise BatchError(f"another batch is writing {self._path}; wait for it or choose another output")
        if lock is Lock.UNSUPPORTED:
            _log.warning("no locks on the filesystem of %s: see to it that no second batch writes there", self._path)

    def _read(self) -> tuple[set[Id], int]:
        """The ids that have results, and where their whole lines end."""
        finished: set[Id] = set()
        size = 0
        with self._path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if not line.endswith(b"\n"):
                    self._check_torn(number, line)
                    break
                finished.add(self._id(number, line))
                size += len(line)
        return finished, size

    def _id(self, number: int, line: bytes) -> Id:
        try:
            return id_of(line)
        except msgspec.DecodeError as error:
            raise self._foreign(number) from error

    def _check_torn(self, number: int, line: bytes) -> None:
        if not (line.startswith(RESULT_START) or RESULT_START.startswith(line)):
            raise self._foreign(number)

    def _foreign(self, number: int) -> BatchError:
        return BatchError(f"{self._path}, line {number}: not a batch's result; choose another output")


class ErrorLog:
    """`OUTPUT.errors.jsonl`: what went wrong this time; it begins anew, and is not there while nothing went wrong."""

    def __init__(self, output: Path) -> None:
        self.path = output.with_name(f"{output.name.removesuffix('.jsonl')}.errors.jsonl")
        try:
            self.path.unlink(missing_ok=True)
        except OSError as error:
            raise BatchError(f"cannot remove the old {self.path}: {error.strerror}") from error

    def append(self, line: bytes) -> None:
        """Write one error, newline included. Raises BatchError."""
        try:
            with self.path.open("ab") as file:
                file.write(line)
        except OSError as error:
            raise BatchError(f"cannot write {self.path}: {error.strerror}") from error


def _write_all(file: int, data: bytes) -> None:
    while data:
        data = data[os.write(file, data) :]
