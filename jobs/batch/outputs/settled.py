"""The rows of a shard that are settled, together with the input's columns."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ....core.errors import BatchError
from ..inputs.plan import Shard
from ..inputs.reader import Reader
from ..ledger.ledger import Ledger
from ..ledger.record import Record
from .json_values import python_rows

if TYPE_CHECKING:
    import pyarrow as pa

Settled = tuple[Mapping[str, Any] | None, Record]  # a row's columns, None where it could not be read; and its end


class SettledRows:
    """Reads the rows of shards that have a record: all of a sealed one. Blank ones are left out."""

    def __init__(self, ledger: Ledger, reader: Reader) -> None:
        self._ledger, self._reader = ledger, reader

    def rows(self, shard: Shard) -> Iterator[Settled]:
        """One by one, in their order. Raises BatchError."""
        table = self._reader.table(shard)
        if table is not None:
            records = self._records_of(shard, table)
            return zip(python_rows(_chosen(table, records)), records, strict=True)
        return self._joined(shard)

    def table(self, shard: Shard) -> "tuple[pa.Table | list[Mapping[str, Any] | None], list[Record]]":
        """The columns of all, as a table where they have types of their own; and the records. Raises BatchError."""
        table = self._reader.table(shard)
        if table is not None:
            records = self._records_of(shard, table)
            return _chosen(table, records), records
        joined = list(self._joined(shard))
        return [value for value, _ in joined], [record for _, record in joined]

    def count(self, shard: Shard) -> int:
        """How many there are. Raises BatchError."""
        return sum(not record.blank for record in self._ledger.records(shard.number))

    def _joined(self, shard: Shard) -> Iterator[Settled]:
        rows = self._reader.rows(shard)
        for record in self._ledger.records(shard.number):
            for row in rows:
                if row.index == record.index:
                    break
            else:
                raise _other_rows(shard, record)
            if not record.blank and not row.is_blank:
                yield row.value, record

    def _records_of(self, shard: Shard, table: "pa.Table") -> list[Record]:
        records = [record for record in self._ledger.records(shard.number) if not record.blank]
        if records and records[-1].index >= len(table):
            raise _other_rows(shard, records[-1])
        return records


def _chosen(table: "pa.Table", records: Sequence[Record]) -> "pa.Table":
    if len(records) == len(table):
        return table
    return table.take([record.index for record in records])


def _other_rows(shard: Shard, record: Record) -> BatchError:
    return BatchError(
        f"shard {shard.number} of the batch has no row {record.index}: the input has changed since it was computed"
    )
