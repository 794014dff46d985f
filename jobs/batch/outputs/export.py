"""From sealed shards and the input to the output."""

from dataclasses import dataclass
from pathlib import Path

from ..inputs.reader import Reader
from ..ledger.ledger import Ledger


@dataclass(frozen=True, kw_only=True)
class OutputOptions:
    """Where and how a batch's output is written."""

    path: Path  # a file whose name says its format, or a folder
    format: str | None = None  # jsonl, csv or parquet; by default that of the file's name, in a folder the input's
    rows_per_file: int = 100_000  # at least, in a folder
    columns: tuple[str, ...] | None = None  # of the input that are kept; None: all


class Export:
    """Writes the output of a ledger. All methods may take long: call them in a thread.

    They raise BatchError. A file is written beside its place and renamed when it is whole and on the disk.
    """

    def __init__(self, ledger: Ledger, reader: Reader, options: OutputOptions) -> None:
        raise NotImplementedError

    def check(self) -> None:
        """Before anything is sent: raise UsageError or BatchError where the output cannot be written.

        Such as a column of the input that has the name of a generated one, a folder that holds other files, an output
        that is the input.
        """
        raise NotImplementedError

    def write_ready(self) -> None:
        """Write each file of an output folder whose rows are all there and that is missing. Of one file: nothing."""
        raise NotImplementedError

    def finish(self) -> Path:
        """Write what is missing, now that all shards are sealed."""
        raise NotImplementedError

    def snapshot(self, path: Path) -> int:
        """Write the rows that are settled by now, in their order, into a file or folder of its own; how many."""
        raise NotImplementedError
