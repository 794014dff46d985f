"""Which reader a batch's input has, by the end of the file's name."""

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from .jsonl import JsonlReader
from .request import BadLine, BatchRequest


class Reader(Protocol):
    """Reads one format. Both methods raise BatchError for a file that cannot be read."""

    def count(self, path: Path) -> int:
        """The number of records in the file."""

    def read(self, path: Path) -> Iterator[BatchRequest | BadLine]:
        """All records in order, of which as few as possible are in memory at once; bad ones are told, not raised."""


_READERS: dict[str, type[Reader]] = {".jsonl": JsonlReader}


def reader_of(path: Path) -> Reader:
    """The reader of an input file; a file with an unknown ending is read as JSON Lines."""
    return _READERS.get(path.suffix.lower(), JsonlReader)()
