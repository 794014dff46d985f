"""Reading the records of a shard out of all segments that drivers have left of it, in 29 bytes of memory for each."""

import logging
import os
import struct
from collections.abc import Generator, Iterable
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt

from ....core.errors import BatchError
from .layout import Sums
from .record import Record, decode

_log = logging.getLogger(__name__)
_FAILED, _ANSWERED, _BLANK = 1, 2, 3
_MOST = 2**31 - 1
_PACKED = struct.Struct("<IqIBiii")
_ROW = np.dtype(
    [("index", "<u4"), ("offset", "<i8"), ("length", "<u4"), ("state", "u1"), ("prompt", "<i4"), ("cached", "<i4"),
     ("completion", "<i4")]
)  # fmt: skip


def sums_of(record: Record) -> Sums:
    """What one record adds."""
    state = _state(record)
    return Sums(
        answered=int(state == _ANSWERED),
        failed=int(state == _FAILED),
        blank=int(state == _BLANK),
        prompt_tokens=_figure(record.prompt_tokens),
        cached_tokens=_figure(record.cached_tokens),
        completion_tokens=_figure(record.completion_tokens),
    )


def _state(record: Record) -> int:
    if record.blank:
        return _BLANK
    return _FAILED if record.answer is None else _ANSWERED


def _figure(tokens: int) -> int:
    return min(max(0, tokens), _MOST)


class _Segment:
    """One segment as it grows; only what is new is read again."""

    def __init__(self, path: Path, rows: int) -> None:
        self.path = path
        self._rows, self._read = rows, 0
        self._found = bytearray()

    @property
    def table(self) -> npt.NDArray[np.void]:
        """Its records, in their order; rows may be there more than once."""
        return np.frombuffer(bytes(self._found), _ROW)

    def refresh(self) -> bool:
        """Read what was appended: whether that is anything. A torn last line is left for later.

        What is no record is passed over. Raises BatchError where it cannot be read; one that is gone has nothing new.
        """
        before = self._read
        try:
            with self.path.open("rb") as file:
                if os.fstat(file.fileno()).st_size > self._read:
                    file.seek(self._read)
                    for line in file:
                        if not line.endswith(b"\n"):
                            break
                        self._take(line)
                        self._read += len(line)
        except FileNotFoundError:
            pass
        except OSError as error:
            raise BatchError(f"cannot read {self.path}: {error.strerror}") from error
        return self._read != before

    def _take(self, line: bytes) -> None:
        try:
            record = decode(line)
            if not 0 <= record.index < self._rows:
                raise ValueError(f"row {record.index} of {self._rows}")
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            _log.warning("%s: passed over what is no record (at byte %d: %s)", self.path, self._read, error)
            return
        tokens = map(_figure, (record.prompt_tokens, record.cached_tokens, record.completion_tokens))
        self._found += _PACKED.pack(record.index, self._read, len(line), _state(record), *tokens)


class ShardRecords:
    """All segments of one shard of so many rows, and one record of each row: an answer before an error.

    Of several answers it is the first one of the segment whose name comes first.
    """

    def __init__(self, rows: int) -> None:
        self._rows = rows
        self._segments: dict[Path, _Segment] = {}
        self._chosen: tuple[npt.NDArray[np.void], npt.NDArray[np.intp]] | None = None
        self._sums: Sums | None = None

    def refresh(self, paths: Iterable[Path]) -> None:
        """Read what is new in these segments, and forget all others. Raises BatchError."""
        segments = {path: self._segments.get(path) or _Segment(path, self._rows) for path in sorted(paths)}
        news = [segment.refresh() for segment in segments.values()]
        if any(news) or segments.keys() != self._segments.keys():
            self._chosen = self._sums = None
        self._segments = segments

    @property
    def answered(self) -> set[int]:
        """Rows that need nothing more."""
        table, _ = self._records()
        return set(table["index"][table["state"] != _FAILED].tolist())

    @property
    def missing(self) -> int | None:
        """The first row without a record."""
        table, _ = self._records()
        if len(table) == self._rows:
            return None
        gaps = np.flatnonzero(table["index"] != np.arange(len(table)))
        return int(gaps[0]) if len(gaps) else len(table)

    @property
    def sums(self) -> Sums:
        """What the records add up to."""
        if self._sums is None:
            table, _ = self._records()
            states = np.bincount(table["state"], minlength=_BLANK + 1)
            tokens = [int(table[name].sum(dtype=np.int64)) for name in ("prompt", "cached", "completion")]
            self._sums = Sums(int(states[_ANSWERED]), int(states[_FAILED]), int(states[_BLANK]), *tokens)
        return self._sums

    def lines(self) -> Generator[bytes, None, None]:
        """The records as lines, in the order of the rows. Raises OSError, and BatchError for one that has changed."""
        table, sources = self._records()
        paths = list(self._segments)
        opened: dict[int, int] = {}
        try:
            for source, offset, length in zip(
                sources.tolist(), table["offset"].tolist(), table["length"].tolist(), strict=True
            ):
                if source not in opened:
                    opened[source] = os.open(paths[source], os.O_RDONLY | os.O_CLOEXEC)
                line = os.pread(opened[source], length, offset)
                if len(line) != length:
                    raise BatchError(f"{paths[source]} was shortened by another program; start the same command again")
                yield line
        finally:
            for descriptor in opened.values():
                os.close(descriptor)

    def _records(self) -> tuple[npt.NDArray[np.void], npt.NDArray[np.intp]]:
        """The chosen records by row, and which segment each is in."""
        if self._chosen is None:
            tables = [segment.table for segment in self._segments.values()]
            table = np.concatenate([np.empty(0, _ROW), *tables])
            sources = np.repeat(np.arange(len(tables)), [len(found) for found in tables])
            order = np.lexsort((table["state"] == _FAILED, table["index"]))  # stable
            table, sources = table[order], sources[order]
            is_first = np.ones(len(table), bool)
            is_first[1:] = table["index"][1:] != table["index"][:-1]
            self._chosen = table[is_first], sources[is_first]
        return self._chosen
