"""Batch inputs in CSV with a header (RFC 4180: quoted values may hold commas, quotes and line ends); .tsv has tabs.

Read by Python's parser, which says of each row what is wrong with it, and where the next one begins. All values are
text, as they stand in the file, so that types do not depend on how much was read, and `007` stays what it is. A value
that is empty is the empty text.
"""

import csv
from array import array
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from .....core import jsonl
from .....core.errors import BatchError
from ..plan import InputFile, Shard
from ..row import Row
from .lines import Lines
from .source import STEP, Index, ended

if TYPE_CHECKING:
    import pyarrow as pa

Record = list[str] | str | None  # values, or what is wrong with the row; None for a blank line


def scan(file: InputFile, on_bytes: Callable[[int], None]) -> Index:
    """Count rows, blank lines too."""
    records = _Records(file)
    try:
        header, offsets, rows, told = records.header(), array("q"), 0, 0
        while True:
            if rows % STEP == 0:
                offsets.append(records.position)
                on_bytes(records.position - told if file.compression is None else 0)
                told = records.position
            if not records.skip():
                break
            rows += 1
        if not header and rows:
            raise BatchError(f"{file.path}: the first line is blank: expected the names of the columns")
        return Index(rows=rows, plain_bytes=records.position, offsets=offsets[: -(-rows // STEP)])
    finally:
        records.close()


def open_source(file: InputFile, columns: tuple[str, ...] | None) -> "CsvSource":
    """Open a file; rows have all columns, since whole lines are parsed anyway."""
    return CsvSource(file)


class CsvSource:
    """An open CSV file."""

    def __init__(self, file: InputFile) -> None:
        self._file = file
        self._records = _Records(file)
        try:
            self._header = self._records.header()
        except BatchError:
            self._records.close()
            raise

    def rows(self, shard: Shard) -> Iterator[Row]:
        """See `Reader.rows`."""
        for index, record in enumerate(self._of(shard)):
            value = dict(zip(self._header, record, strict=True)) if isinstance(record, list) else None
            problem = record if isinstance(record, str) else None
            yield Row(shard.number, index, shard.first + index + 1, value, problem, "csv")

    def table(self, shard: Shard) -> "pa.Table":
        """See `Reader.table`. Rows without values are null in all columns."""
        import pyarrow as pa

        nothing = [None] * len(self._header)
        records = [record if isinstance(record, list) else nothing for record in self._of(shard)]
        columns = zip(*records, strict=True) if records else [[] for _ in self._header]
        return pa.table([pa.array(column, pa.string()) for column in columns], names=self._header)

    def close(self) -> None:
        """Close the file."""
        self._records.close()

    def _of(self, shard: Shard) -> Iterator[Record]:
        self._records.seek(shard.offset)
        for _ in range(shard.rows):
            try:
                yield self._records.next(self._header)
            except EOFError as error:
                raise ended(self._file) from error


_NEVER_CLOSED = "a value begins with a quote that nothing closes, so the rest of the file belongs to it"


class _Records:
    """The records of a file, from any place on where one begins."""

    def __init__(self, file: InputFile) -> None:
        csv.field_size_limit(jsonl.LONGEST_LINE)  # of the whole process
        self._file = file
        self._lines = Lines(file)
        self._problem: str | None = None
        self._delimiter = "\t" if ".tsv" in map(str.lower, file.path.suffixes) else ","
        self._reader = self._parser()

    @property
    def position(self) -> int:
        """Byte of the next record in the plain text."""
        return self._lines.position

    def seek(self, offset: int) -> None:
        """Go to a record."""
        self._lines.seek(offset)
        self._reader = self._parser()

    def header(self) -> list[str]:
        """The names of the columns, from the first line; none of an empty file."""
        try:
            names = self._next()
        except EOFError:
            return []
        if isinstance(names, str):
            raise BatchError(f"{self._file.path}: line 1, the names of the columns: {names}")
        for place, name in enumerate(names):
            if name in names[:place]:
                raise BatchError(f"{self._file.path}: line 1: two columns have the name {name!r}")
        return names

    def next(self, header: list[str]) -> Record:
        """The next record. Raises EOFError."""
        record = self._next()
        if isinstance(record, str) or len(record) == len(header):
            return record
        if not record:
            return None
        return f"has {len(record)} values, and the file has {len(header)} columns"

    def skip(self) -> bool:
        """Pass over a record; False: there is none."""
        try:
            self._next()
        except EOFError:
            return False
        return True

    def close(self) -> None:
        """Close the file."""
        self._lines.close()

    def _parser(self) -> "Iterator[list[str]]":
        return csv.reader(self._texts(), delimiter=self._delimiter, strict=True)

    def _next(self) -> list[str] | str:
        self._problem = None
        try:
            record = next(self._reader)
        except StopIteration:
            raise EOFError from None
        except csv.Error as error:
            said = _NEVER_CLOSED if str(error) == "unexpected end of data" else str(error)
            return self._problem or f"not CSV: {said}"
        return self._problem or record

    def _texts(self) -> Iterator[str]:
        while True:
            try:
                line = self._lines.next()
            except EOFError:
                return
            if line is None:
                self._problem, line = str(jsonl.too_long()), b"\n"
            try:
                yield line.decode()
            except UnicodeDecodeError as error:
                self._problem = f"not UTF-8: {error.reason}"
                yield line.decode(errors="replace")
