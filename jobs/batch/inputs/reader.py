"""Reading the rows of shards, whatever their format."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from .plan import Plan, Shard
from .row import Row

if TYPE_CHECKING:
    import pyarrow as pa


class Reader:
    """Reads shards of a plan. Shards that follow each other are read through one open file; any order is right.

    For one thread. All methods raise BatchError where a file cannot be read or has changed since the plan was made.
    """

    def __init__(self, plan: Plan) -> None:
        raise NotImplementedError

    def rows(self, shard: Shard) -> Iterator[Row]:
        """All rows of a shard in order, one by one; what cannot be read is told as a row with a problem, not raised."""
        raise NotImplementedError

    def table(self, shard: Shard) -> "pa.Table | None":
        """The shard with its columns' own types; None for formats whose rows have none (JSON Lines, text)."""
        raise NotImplementedError

    def close(self) -> None:
        """Close all files."""
        raise NotImplementedError
