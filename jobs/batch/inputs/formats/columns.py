"""Reading files of columns batch by batch, and making rows of them."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Protocol

from .....core.errors import BatchError
from ..plan import InputFile, Shard
from ..row import Row
from .source import ended, unreadable

if TYPE_CHECKING:
    import pyarrow as pa

_AT_ONCE = 1024  # rows made at once
_AT_ONCE_BYTES = 8 * 1024 * 1024


class ColumnFile(Protocol):
    """An open file of columns."""

    schema: "pa.Schema"

    def start(self, first: int) -> int:
        """The row at which reading begins to get at row `first`: at most that."""

    def batches(self, first: int, columns: list[str] | None) -> "Iterator[pa.RecordBatch]":
        """All rows from `start(first)` on."""

    def close(self) -> None:
        """Close the file."""


class ColumnSource:
    """Rows and tables of a file of columns."""

    def __init__(self, file: InputFile, opened: ColumnFile, columns: tuple[str, ...] | None) -> None:
        self._file, self._opened = file, opened
        try:
            self._names = _names(file, opened)
        except BatchError:
            opened.close()
            raise
        self._some = None if columns is None else [name for name in self._names if name in columns]
        self._for_rows = _Cursor(file, opened, self._some)
        self._for_tables = _Cursor(file, opened, None)

    def rows(self, shard: Shard) -> Iterator[Row]:
        """See `Reader.rows`."""
        index, all_names = 0, () if self._some is None else self._names
        for batch in self._for_rows.take(shard.first, shard.rows):
            for value in _values(batch):
                problem = value if isinstance(value, str) else None
                found = None if isinstance(value, str) else value
                yield Row(shard.number, index, shard.first + index + 1, found, problem, self._file.format, all_names)
                index += 1

    def table(self, shard: Shard) -> "pa.Table":
        """See `Reader.table`."""
        import pyarrow as pa

        return pa.Table.from_batches(list(self._for_tables.take(shard.first, shard.rows)), self._opened.schema)

    def close(self) -> None:
        """Close the file."""
        self._opened.close()


class _Cursor:
    """A place in a file, from which it is read on where the next rows that are wanted are close after."""

    def __init__(self, file: InputFile, opened: ColumnFile, columns: list[str] | None) -> None:
        self._file, self._opened, self._columns = file, opened, columns
        self._batches: Iterator[pa.RecordBatch] | None = None
        self._rest: pa.RecordBatch | None = None
        self._position = 0  # of the first row of the rest

    def take(self, first: int, rows: int) -> "Iterator[pa.RecordBatch]":
        """Rows from `first` on, as they lie in the file. Raises BatchError."""
        if self._batches is None or not self._opened.start(first) <= self._position <= first:
            self._position, self._rest = self._opened.start(first), None
            self._batches = self._opened.batches(first, self._columns)
        while rows:
            batch = self._next()
            if self._position + batch.num_rows <= first:
                self._position += batch.num_rows
                continue
            part = batch.slice(first - self._position, rows)
            used = first - self._position + part.num_rows
            self._rest = batch.slice(used) if used < batch.num_rows else None
            first, rows = first + part.num_rows, rows - part.num_rows
            self._position = first
            yield part

    def _next(self) -> "pa.RecordBatch":
        import pyarrow as pa

        rest, self._rest = self._rest, None
        if rest is not None:
            return rest
        assert self._batches is not None
        try:
            batch = next(self._batches, None)
        except (pa.ArrowException, OSError, ValueError) as error:
            self._batches = None
            raise unreadable(self._file, error) from error
        if batch is None:
            self._batches = None
            raise ended(self._file)
        return batch


def _names(file: InputFile, opened: ColumnFile) -> tuple[str, ...]:
    try:
        names = tuple(opened.schema.names)
    except UnicodeDecodeError as error:
        raise BatchError(f"{file.path}: the name of a column is not UTF-8") from error
    for place, name in enumerate(names):
        if name in names[:place]:
            raise BatchError(f"{file.path}: two columns have the name {name!r}")
    return names


def _values(batch: "pa.RecordBatch") -> Iterator[dict[str, Any] | str]:
    """Rows as Python's values, or what is wrong with them."""
    each = max(1, batch.nbytes // max(1, batch.num_rows))
    step = max(1, min(_AT_ONCE, _AT_ONCE_BYTES // each))
    names = batch.schema.names
    for first in range(0, batch.num_rows, step):
        part = batch.slice(first, step)
        if not names:
            yield from ({} for _ in range(part.num_rows))
            continue
        try:
            columns = [column.to_pylist() for column in part.columns]
        except (ValueError, TypeError, OverflowError, ArithmeticError):
            yield from (_one(part, place) for place in range(part.num_rows))
            continue
        yield from (dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True))


def _one(batch: "pa.RecordBatch", place: int) -> dict[str, Any] | str:
    value = {}
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        try:
            value[name] = column[place].as_py()
        except (ValueError, TypeError, OverflowError, ArithmeticError) as error:
            return f"column {name!r}: {' '.join(str(error).split())[:200]}"
    return value
