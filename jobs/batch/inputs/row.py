"""One row of a batch's input, as it was read and before anything is made of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Row:
    """A row of a shard.

    A row that cannot be read has a `problem` and no value. A blank line has neither, and is no row of the output.
    """

    shard: int
    index: int  # within the shard, from 0
    line: int  # in its file, from 1, for messages: of lines, else the number of the row
    value: Mapping[str, Any] | None  # by column; the types are Python's
    problem: str | None = None
    format: str = "jsonl"  # of its file
    columns: tuple[str, ...] = ()  # that its file has, where only some were read

    @property
    def place(self) -> str:
        """Where it is in its file, for messages: "line 2", or "row 2" where rows are no lines (CSV has a header)."""
        return f"{'line' if self.format in ('jsonl', 'text') else 'row'} {self.line}"

    @property
    def is_blank(self) -> bool:
        """Whether there is nothing to do and nothing to write."""
        return self.value is None and self.problem is None
