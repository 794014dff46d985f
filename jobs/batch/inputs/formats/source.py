"""What every format says about a file, and does with it once it is open."""

from array import array
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Protocol

import msgspec

from .....core.errors import BatchError
from ..plan import InputFile, Shard
from ..row import Row

if TYPE_CHECKING:
    import pyarrow as pa

STEP = 64  # rows between places that are noted when a file is counted


class Index(msgspec.Struct, kw_only=True):
    """The size of a file, and where in it shards may begin."""

    rows: int
    plain_bytes: int  # not compressed
    offsets: "array[int] | None" = None  # bytes of rows 0, step, 2 * step ...; None: rows are found by their number
    step: int = STEP

    def thin(self) -> None:
        """Forget every other place."""
        assert self.offsets is not None
        self.offsets = self.offsets[::2]
        self.step *= 2

    def byte_of(self, place: int) -> int:
        """Where row `place` * `step` begins, exactly where offsets are known; the file's end for a place beyond."""
        if place * self.step >= self.rows:
            return self.plain_bytes
        if self.offsets is not None:
            return self.offsets[place]
        return self.plain_bytes * place * self.step // self.rows


class Source(Protocol):
    """An open file of one format."""

    def rows(self, shard: Shard) -> Iterator[Row]:
        """See `Reader.rows`. One iterator at a time."""

    def table(self, shard: Shard) -> "pa.Table | None":
        """See `Reader.table`."""

    def close(self) -> None:
        """Close the file."""


class Format(Protocol):
    """A module for each format."""

    def scan(self, file: InputFile, on_bytes: Callable[[int], None]) -> Index:
        """Count a file; `on_bytes` is called with bytes of it that were read."""

    def open_source(self, file: InputFile, columns: tuple[str, ...] | None) -> Source:
        """Open a file, to read all columns or some."""


def ended(file: InputFile) -> BatchError:
    """For a file that has fewer rows than it had."""
    return BatchError(f"{file.path}: has fewer rows than when it was counted; it was changed meanwhile")


def unreadable(file: InputFile, error: Exception) -> BatchError:
    """For what a library says about a file, in one line."""
    said = getattr(error, "strerror", None) or " ".join(str(error).split())
    return BatchError(f"cannot read {file.path} as {file.format}: {said}")
