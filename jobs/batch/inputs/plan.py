"""The rows of a batch's input, cut into shards."""

from pathlib import Path

import msgspec


class InputFile(msgspec.Struct, frozen=True, kw_only=True):
    """One file of the input, and what shows that it is still the same."""

    path: Path  # absolute
    format: str  # jsonl, text, csv, parquet or arrow
    compression: str | None = None  # gz or zst
    size: int  # bytes
    changed_ns: int  # time of its last change, Unix nanoseconds
    rows: int


class Shard(msgspec.Struct, frozen=True, kw_only=True):
    """Rows of one file that follow each other."""

    number: int  # from 0, in the order of the input
    file: int  # place of its file in the plan
    first: int  # place of its first row in the file, from 0; lines that are blank count
    rows: int
    offset: int = 0  # byte of its first row in the plain text of lines and CSV; else 0


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """All rows of an input. Shards are in the order of the files, and within a file in the order of its rows."""

    files: tuple[InputFile, ...]
    shards: tuple[Shard, ...]

    @property
    def rows(self) -> int:
        """Rows of all files."""
        return sum(file.rows for file in self.files)
