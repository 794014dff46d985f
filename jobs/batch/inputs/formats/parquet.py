"""Batch inputs in Parquet."""

from collections.abc import Callable, Iterator
from itertools import accumulate
from typing import TYPE_CHECKING

from ..plan import InputFile
from .columns import ColumnSource
from .source import Index, Source, unreadable

if TYPE_CHECKING:
    import pyarrow as pa

_BATCH_ROWS = 4096
_BATCH_BYTES = 8 * 1024 * 1024
_BUFFER = 1 << 20


def scan(file: InputFile, on_bytes: Callable[[int], None]) -> Index:
    """Count rows by the file's metadata."""
    opened = ParquetFile(file)
    try:
        on_bytes(file.size)
        return Index(rows=opened.rows, plain_bytes=opened.plain_bytes)
    finally:
        opened.close()


def open_source(file: InputFile, columns: tuple[str, ...] | None) -> Source:
    """Open a file; only the columns that are wanted are read."""
    return ColumnSource(file, ParquetFile(file), columns)


class ParquetFile:
    """An open Parquet file. Reading begins at row groups."""

    def __init__(self, file: InputFile) -> None:
        import pyarrow as pa
        from pyarrow import parquet

        try:
            self._file = parquet.ParquetFile(str(file.path), buffer_size=_BUFFER, pre_buffer=False)
            self.schema: pa.Schema = self._file.schema_arrow
            groups = [self._file.metadata.row_group(number) for number in range(self._file.num_row_groups)]
            self._starts: list[int] = [0, *accumulate(group.num_rows for group in groups)]
            self.plain_bytes = max(0, sum(group.total_byte_size for group in groups))
            if self._starts != sorted(self._starts) or self._starts[-1] != self._file.metadata.num_rows:
                raise ValueError("damaged: the numbers of rows in its metadata contradict each other")
        except (pa.ArrowException, OSError, ValueError) as error:
            raise unreadable(file, error) from error

    @property
    def rows(self) -> int:
        """Of all row groups."""
        return self._starts[-1]

    def start(self, first: int) -> int:
        """The first row of the row group that has this row."""
        return self._starts[self._group(first)]

    def batches(self, first: int, columns: list[str] | None) -> "Iterator[pa.RecordBatch]":
        """All rows from `start(first)` on, some MiB at a time."""
        by_name = None if columns is None or any("." in name for name in columns) else columns
        size = max(1, min(_BATCH_ROWS, _BATCH_BYTES * max(1, self.rows) // max(1, self.plain_bytes)))
        groups = list(range(self._group(first), self._file.num_row_groups))
        for batch in self._file.iter_batches(size, row_groups=groups, columns=by_name, use_threads=False):
            yield batch if columns is None else batch.select(columns)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _group(self, row: int) -> int:
        from bisect import bisect_right

        return max(0, min(bisect_right(self._starts, row), len(self._starts) - 1) - 1)
