"""Reading the records of a shard, out of all segments that drivers have left of it, in memory for one record."""

import logging
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec

from ....core.errors import BatchError
from .layout import Sums
from .record import Record, decode

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Place:
    """Where the record of a row is, and what it adds."""

    path: Path
    offset: int
    length: int
    is_answered: bool
    sums: Sums


def sums_of(record: Record) -> Sums:
    """What one record adds."""
    return Sums(
        answered=int(record.answer is not None),
        failed=int(not record.is_answered),
        blank=int(record.blank),
        prompt_tokens=record.prompt_tokens,
        cached_tokens=record.cached_tokens,
        completion_tokens=record.completion_tokens,
    )


class Segment:
    """One segment as it grows; only what is new is read again."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.places: dict[int, Place] = {}  # by row
        self._read = 0

    def refresh(self, rows: int) -> None:
        """Read what was appended. A torn last line is left for later, what is no record is passed over.

        Raises BatchError where it cannot be read; a segment that is gone has nothing new.
        """
        try:
            with self.path.open("rb") as file:
                if os.fstat(file.fileno()).st_size == self._read:
                    return
                file.seek(self._read)
                for line in file:
                    if not line.endswith(b"\n"):
                        return
                    self._take(line, rows)
                    self._read += len(line)
        except FileNotFoundError:
            return
        except OSError as error:
            raise BatchError(f"cannot read {self.path}: {error.strerror}") from error

    def _take(self, line: bytes, rows: int) -> None:
        try:
            record = decode(line)
            if not 0 <= record.index < rows:
                raise ValueError(f"row {record.index} of {rows}")
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            _log.warning("%s: passed over what is no record (at byte %d: %s)", self.path, self._read, error)
            return
        before = self.places.get(record.index)
        if before is None or not before.is_answered:
            place = Place(self.path, self._read, len(line), record.is_answered, sums_of(record))
            self.places[record.index] = place


class ShardRecords:
    """All segments of one shard."""

    def __init__(self, rows: int) -> None:
        self._rows = rows
        self._segments: dict[Path, Segment] = {}

    def refresh(self, paths: Iterable[Path]) -> None:
        """Read what is new in these segments. Raises BatchError."""
        for path in paths:
            self._segments.setdefault(path, Segment(path)).refresh(self._rows)

    @property
    def places(self) -> dict[int, Place]:
        """One record of each row: an answer before an error, then that of the segment whose name comes first."""
        found: dict[int, Place] = {}
        for path in sorted(self._segments):
            for index, place in self._segments[path].places.items():
                if index not in found or (place.is_answered and not found[index].is_answered):
                    found[index] = place
        return found

    @property
    def sums(self) -> Sums:
        """What the records add up to."""
        return sum((place.sums for place in self.places.values()), Sums())


def lines(places: Iterable[Place]) -> Iterator[bytes]:
    """The records at these places, as lines. Raises BatchError."""
    opened: dict[Path, int] = {}
    try:
        for place in places:
            if place.path not in opened:
                opened[place.path] = os.open(place.path, os.O_RDONLY | os.O_CLOEXEC)
            yield os.pread(opened[place.path], place.length, place.offset)
    except OSError as error:
        raise BatchError(f"cannot read {error.filename or 'a segment'}: {error.strerror}") from error
    finally:
        for descriptor in opened.values():
            os.close(descriptor)


def records_of(path: Path) -> Iterator[Record]:
    """The records of a sealed shard, in order. Raises BatchError."""
    try:
        with path.open("rb") as file:
            for line in file:
                yield decode(line)
    except OSError as error:
        raise BatchError(f"cannot read {path}: {error.strerror}") from error
    except (msgspec.MsgspecError, ValueError) as error:
        raise BatchError(f"{path} is damaged: {error}; remove it, and start the same command again") from error


def write_sealed(path: Path, beside: Path, places: Iterable[Place]) -> None:
    """Write records into a file that appears when it is whole and on the disk. Raises BatchError."""
    try:
        with beside.open("wb") as file:
            file.writelines(lines(places))
            file.flush()
            os.fsync(file.fileno())
        os.rename(beside, path)
        _sync_folder(path.parent)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise BatchError(
            f"cannot write {path}: {error.strerror}; nothing is lost: start the same command again"
        ) from error


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
