"""Reading the rows of shards, whatever their format."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from ....core.errors import BatchError
from .files import has_changed
from .formats.source import Source
from .formats.table import FORMATS
from .plan import Plan, Shard
from .row import Row

if TYPE_CHECKING:
    import pyarrow as pa


class Reader:
    """Reads shards of a plan. Shards that follow each other are read through one open file; any order is right.

    For one thread, one iterator at a time. All methods raise BatchError where a file cannot be read or has changed
    since the plan was made.

    Args:
        columns: that rows need, of files of columns; by default all. Tables always have all.
    """

    def __init__(self, plan: Plan, columns: Sequence[str] | None = None) -> None:
        self._plan = plan
        self._columns = None if columns is None else tuple(columns)
        self._source: Source | None = None
        self._number = -1  # of the file that is open

    def rows(self, shard: Shard) -> Iterator[Row]:
        """All rows of a shard in order, one by one; what cannot be read is told as a row with a problem, not raised."""
        return self._open(shard).rows(shard)

    def table(self, shard: Shard) -> "pa.Table | None":
        """The shard with its columns' own types; None for formats whose rows have none (JSON Lines, text).

        All columns of CSV are text. Rows that cannot be read, and blank lines, are null in all columns.
        """
        return self._open(shard).table(shard)

    def close(self) -> None:
        """Close all files."""
        source, self._source, self._number = self._source, None, -1
        if source is not None:
            source.close()

    def _open(self, shard: Shard) -> Source:
        file = self._plan.files[shard.file]
        if has_changed(file):
            self.close()
            raise BatchError(f"{file.path}: was changed while the batch ran; start the batch again to go on with it")
        if self._source is None or self._number != shard.file:
            self.close()
            self._source, self._number = FORMATS[file.format].open_source(file, self._columns), shard.file
        return self._source
