"""Writers of the formats. Memory is that of one shard, in Parquet that of one row group besides."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Protocol

import pyarrow as pa
import pyarrow.csv as pc
import pyarrow.parquet as pq
import pyarrow.types as pt

from ....core.errors import UsageError
from .json_values import json_column

_LINES_BYTES = 1 << 20
_GROUP_ROWS, _GROUP_BYTES = 100_000, 128 * 1024 * 1024  # of a row group, at least one of them


class TableWriter(Protocol):
    """Takes tables of one schema, whose rows follow each other."""

    def write(self, table: pa.Table) -> None:
        """Write the rows, soon."""


def write_lines(stream: pa.NativeFile, lines: Iterable[bytes]) -> int:
    """Write lines, newlines included; how many."""
    count = size = 0
    parts: list[bytes] = []
    for line in lines:
        count += 1
        parts.append(line)
        size += len(line)
        if size >= _LINES_BYTES:
            stream.write(b"".join(parts))
            parts.clear()
            size = 0
    stream.write(b"".join(parts))
    return count


@contextmanager
def parquet_writer(stream: pa.NativeFile, schema: pa.Schema) -> Iterator[TableWriter]:
    """Writes Parquet, compressed by zstd, in row groups of about 100,000 rows or 128 MiB."""
    writer = pq.ParquetWriter(stream, schema, compression="zstd")
    try:
        groups = _RowGroups(writer)
        yield groups
        groups.end()
        writer.close()
    finally:
        if writer.is_open:  # something has failed: what it has to write at its end must not be tried again
            with suppress(OSError, ValueError, pa.ArrowException):
                writer.close()
            writer.is_open = False


def check_schema(schema: pa.Schema, format: str) -> None:
    """Raise UsageError for columns of types that a format lacks, and that have no other form in it."""
    if format != "parquet":
        return
    for field in schema:
        try:
            pq.ParquetWriter(pa.BufferOutputStream(), pa.schema([field])).close()
        except pa.ArrowException as error:
            raise UsageError(
                f"column {field.name!r} is {field.type}, which Parquet lacks: leave it out with --columns, "
                f"or choose --output-format jsonl ({error})"
            ) from error


@contextmanager
def csv_writer(stream: pa.NativeFile, schema: pa.Schema) -> Iterator[TableWriter]:
    """Writes CSV with a header. Text is in quotes; null is nothing, the empty text `""`.

    Nested values are JSON; other types than numbers and booleans are text as in JSON Lines.
    """
    flat = pa.schema([pa.field(field.name, _flat_type(field.type)) for field in schema])
    writer = pc.CSVWriter(stream, flat)
    try:
        yield _FlatTables(writer, flat)
        writer.close()
    finally:
        with suppress(OSError, ValueError, pa.ArrowException):
            writer.close()


class _RowGroups:
    """Gathers tables into row groups."""

    def __init__(self, writer: pq.ParquetWriter) -> None:
        self._writer = writer
        self._tables: list[pa.Table] = []
        self._rows = self._bytes = 0

    def write(self, table: pa.Table) -> None:
        """Write the rows, soon."""
        self._tables.append(table)
        self._rows += len(table)
        self._bytes += table.nbytes
        if self._rows >= _GROUP_ROWS or self._bytes >= _GROUP_BYTES:
            self.end()

    def end(self) -> None:
        """Write what was gathered."""
        if self._rows:
            self._writer.write_table(pa.concat_tables(self._tables), row_group_size=self._rows)
        self._tables.clear()
        self._rows = self._bytes = 0


class _FlatTables:
    def __init__(self, writer: pc.CSVWriter, schema: pa.Schema) -> None:
        self._writer, self._schema = writer, schema

    def write(self, table: pa.Table) -> None:
        """Write the rows."""
        columns = [
            column if column.type == field.type else json_column(column)
            for column, field in zip(table.columns, self._schema, strict=True)
        ]
        self._writer.write_table(pa.table(columns, schema=self._schema))


def _flat_type(type: pa.DataType) -> pa.DataType:
    keeps = pt.is_boolean(type) or pt.is_integer(type) or pt.is_float32(type) or pt.is_float64(type)
    keeps = keeps or pt.is_string(type) or pt.is_large_string(type)
    return type if keeps else pa.string()
