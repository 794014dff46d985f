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
    """Reads the rows of shards that have a record. Blank ones are left out. All methods raise BatchError.

    Args:
        ledger: of the batch.
        reader: of its input.
    """

    def __init__(self, ledger: Ledger, reader: Reader) -> None:
        self._ledger, self._reader = ledger, reader

    def rows(self, shard: Shard, *, is_whole: bool) -> Iterator[Settled]:
        """One by one, in their order.

        Args:
            shard: whose rows.
            is_whole: all its rows must have a record.
        """
        table = self._reader.table(shard)
        if table is not None:
            records = self._records_of(shard, table, is_whole)
            return zip(python_rows(_chosen(table, records)), records, strict=True)
        return self._joined(shard, is_whole)

    def table(
        self, shard: Shard, *, is_whole: bool
    ) -> "tuple[pa.Table | list[Mapping[str, Any] | None], list[Record]]":
        """The columns of all, as a table where they have types of their own; and the records. See `rows`."""
        table = self._reader.table(shard)
        if table is not None:
            records = self._records_of(shard, table, is_whole)
            return _chosen(table, records), records
        joined = list(self._joined(shard, is_whole))
        return [value for value, _ in joined], [record for _, record in joined]

    def count(self, shard: Shard) -> int:
        """How many there are."""
        return sum(not record.blank for record in self._ledger.records(shard.number))

    def _joined(self, shard: Shard, is_whole: bool) -> Iterator[Settled]:
        rows = self._reader.rows(shard)
        count = 0
        for record in self._ledger.records(shard.number):
            for row in rows:
                if row.index == record.index:
                    break
            else:
                raise _other_rows(shard, record)
            count += 1
            if not record.blank and not row.is_blank:
                yield row.value, record
        if is_whole and count != shard.rows:
            raise _missing_rows(shard, count)

    def _records_of(self, shard: Shard, table: "pa.Table", is_whole: bool) -> list[Record]:
        records = list(self._ledger.records(shard.number))
        if records and records[-1].index >= len(table):
            raise _other_rows(shard, records[-1])
        if is_whole and len(records) != shard.rows:
            raise _missing_rows(shard, len(records))
        return [record for record in records if not record.blank]


def _chosen(table: "pa.Table", records: Sequence[Record]) -> "pa.Table":
    if len(records) == len(table):
        return table
    return table.take([record.index for record in records])


def _other_rows(shard: Shard, record: Record) -> BatchError:
    return BatchError(
        f"shard {shard.number} of the batch has no row {record.index}: the input has changed since it was computed"
    )


def _missing_rows(shard: Shard, count: int) -> BatchError:
    return BatchError(
        f"shard {shard.number} of the batch has {count} of {shard.rows} rows in the ledger: "
        "the output cannot be written yet; nothing is lost: start the same command again"
    )
