"""Whether an output is a file or a folder, and in which format."""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ....core.errors import UsageError

Format = Literal["jsonl", "csv", "parquet"]
FORMATS: tuple[Format, ...] = ("jsonl", "csv", "parquet")

_BY_ENDING: dict[str, tuple[Format, str | None]] = {
    ".jsonl": ("jsonl", None),
    ".ndjson": ("jsonl", None),
    ".csv": ("csv", None),
    ".parquet": ("parquet", None),
    ".jsonl.gz": ("jsonl", "gzip"),
    ".jsonl.zst": ("jsonl", "zstd"),
    ".csv.gz": ("csv", "gzip"),
    ".csv.zst": ("csv", "zstd"),
}
# Endings of files that this writes no such file for. Whoever gives one means no folder.
_OF_OTHER_FILES = frozenset(
    {".json", ".txt", ".tsv", ".arrow", ".feather", ".pq", ".xlsx", ".gz", ".zst", ".zip", ".db"}
)
_ALIKE = 0.8  # from here on an ending counts as a known one that is mistyped
_OF_INPUTS: dict[str, Format] = {"csv": "csv", "parquet": "parquet", "arrow": "parquet"}


@dataclass(frozen=True)
class Form:
    """What is written."""

    format: Format
    compression: str | None  # pyarrow's name of it, of the file as a whole
    is_folder: bool

    @property
    def has_columns(self) -> bool:
        """Whether all rows have the same columns, each with one type."""
        return self.format != "jsonl"


def form_of(path: Path, format: str | None, input_formats: Sequence[str]) -> Form:
    """What an output is, by its name and what is there.

    Args:
        path: of the output. With one of the known endings a file, else a folder; a folder that is there stays one.
        format: as given; None: that of the file's name, and in a folder that of the first input file, where it can be
            written.
        input_formats: of the files of the input.

    Raises UsageError.
    """
    if format is not None and format not in FORMATS:
        raise UsageError(f"--output-format {format}: expected one of {', '.join(FORMATS)}")
    named = None if path.is_dir() else _named(path)
    if named is None:
        given = next((known for known in FORMATS if known == format), None)
        usual = _OF_INPUTS.get(input_formats[0], "jsonl") if input_formats else "jsonl"
        return Form(given or usual, None, is_folder=True)
    if format is not None and format != named[0]:
        raise UsageError(f"--output-format {format}: {path.name} is the name of a file in {named[0]}")
    return Form(*named, is_folder=False)


def _named(path: Path) -> tuple[Format, str | None] | None:
    name = path.name.lower()
    found = next((form for ending, form in _BY_ENDING.items() if name.endswith(ending)), None)
    if found is None and path.suffix.lower() in _OF_OTHER_FILES:
        endings = ", ".join(_BY_ENDING)
        raise UsageError(f"output {path}: expected a name that ends with one of {endings}, or a folder")
    if found is None and (meant := difflib.get_close_matches(path.suffix.lower(), _BY_ENDING, 1, _ALIKE)):
        raise UsageError(f"output {path}: expected a name that ends with {meant[0]}, or a folder of another name")
    return found
