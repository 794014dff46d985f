"""What a batch's output has, as it is written into one file."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import pyarrow as pa

from ..inputs.plan import Shard
from ..parameters import Parameters
from .columns import GeneratedColumns
from .form import Form
from .input_columns import InputColumns
from .lines import LineMaker
from .settled import SettledRows
from .sinks import sink
from .tables import TableMaker
from .writers import csv_writer, parquet_writer, write_lines


class Content:
    """The rows of a batch, for files of one form.

    Args:
        rows: that are settled.
        parameters: of the batch.
        columns: those that are generated.
        own: the input's columns; None: JSON Lines, which need no types.
        kept: columns of the input that are kept; None: all.
    """

    def __init__(
        self,
        rows: SettledRows,
        parameters: Parameters,
        columns: GeneratedColumns,
        own: InputColumns | None,
        kept: tuple[str, ...] | None,
    ) -> None:
        self.rows = rows
        self._parameters, self._columns, self._own, self._kept = parameters, columns, own, kept

    @property
    def schema(self) -> pa.Schema:
        """The columns of a form that has columns."""
        return self._tables.schema

    def write(self, path: Path, form: Form, shards: Sequence[Shard], *, is_whole: bool) -> int:
        """Write the settled rows of shards into a file; how many. Raises BatchError.

        Args:
            path: of the file.
            form: of the output.
            shards: in the order of the input.
            is_whole: that rows are missing is an error.
        """
        with sink(path, form.compression) as stream:
            if not form.has_columns:
                return self._write_lines(stream, shards, is_whole)
            writer = parquet_writer if form.format == "parquet" else csv_writer
            with writer(stream, self.schema) as tables:
                count = 0
                for shard in shards:
                    table = self._tables.table(shard, is_whole=is_whole)
                    tables.write(table)
                    count += len(table)
                return count

    @cached_property
    def _tables(self) -> TableMaker:
        assert self._own is not None
        return TableMaker(self.rows, self._own, self._columns)

    def _write_lines(self, stream: pa.NativeFile, shards: Sequence[Shard], is_whole: bool) -> int:
        maker = LineMaker(self._parameters, self._columns, self._kept)
        rows = ((shard, self.rows.rows(shard, is_whole=is_whole)) for shard in shards)
        return write_lines(stream, (line for shard, settled in rows for line in maker.lines(shard, settled)))
