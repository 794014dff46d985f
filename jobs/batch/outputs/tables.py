"""Rows of the output as tables, for Parquet and CSV."""

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from ..inputs.plan import Shard
from ..ledger.record import Record
from .columns import ERROR, FINISH_REASON, MESSAGE, PARSED, USAGE, USAGE_FIELDS, GeneratedColumns, generated
from .input_columns import InputColumns
from .parsed import parse
from .settled import SettledRows
from .types import arrow_type, json_text

_USAGE_TYPE = pa.struct([(name, pa.int64()) for name in USAGE_FIELDS])


class TableMaker:
    """Makes tables of a batch's output.

    Args:
        rows: of the batch.
        own: the input's columns.
        columns: those that are generated.
    """

    def __init__(self, rows: SettledRows, own: InputColumns, columns: GeneratedColumns) -> None:
        self._rows, self._own, self._columns = rows, own, columns
        self.schema = self._schema()

    def table(self, shard: Shard, *, is_whole: bool) -> pa.Table:
        """The settled rows of a shard. Raises BatchError, also where some are missing and `is_whole`."""
        values, records = self._rows.table(shard, is_whole=is_whole)
        own = self._own.of_table(values) if isinstance(values, pa.Table) else self._own.of_rows(values)
        return pa.Table.from_arrays([*own, *self._generated(records)], schema=self.schema)

    def _schema(self) -> pa.Schema:
        columns = self._columns
        text = pa.list_(pa.string()) if columns.is_listed else pa.string()
        types = {
            columns.answer: text,
            FINISH_REASON: text,
            USAGE: _USAGE_TYPE,
            ERROR: pa.string(),
            MESSAGE: pa.string(),
        }
        if columns.parsed is not None:
            parsed = arrow_type(columns.parsed)
            types[PARSED] = pa.list_(parsed) if columns.is_listed else parsed
        schema = self._own.schema
        for name in columns.names:
            schema = schema.append(pa.field(name, types[name]))
        return schema

    def _generated(self, records: Sequence[Record]) -> list[pa.Array]:
        values: dict[str, list[Any]] = {name: [] for name in self._columns.names}
        for record in records:
            for name, value in self._row(record).items():
                values[name].append(value)
        return [pa.array(values[name], self.schema.field(name).type) for name in self._columns.names]

    def _row(self, record: Record) -> Mapping[str, Any]:
        said, message = generated(record)
        row = {
            self._columns.answer: self._shaped(said.text),
            FINISH_REASON: self._shaped(said.finish_reason),
            USAGE: said.usage,
            ERROR: record.error,
            MESSAGE: message,
        }
        if self._columns.parsed is not None:
            row[PARSED] = self._parsed(said.text)
        return row

    def _shaped(self, value: Any) -> Any:
        """A list in a column of lists; a list of a row that asked for several answers itself becomes JSON elsewhere."""
        if self._columns.is_listed:
            return value if isinstance(value, list) or value is None else [value]
        return json_text(value) if isinstance(value, list) else value

    def _parsed(self, text: Any) -> Any:
        type = self._columns.parsed
        assert type is not None
        if self._columns.is_listed and text is not None:
            return [parse(one, type) for one in self._shaped(text)]
        return parse(text, type)
