"""The files of a batch's input: what its arguments name, in which format, and whether they are what they were."""

from collections.abc import Sequence

from .plan import InputFile


def find(inputs: Sequence[str], format: str | None = None) -> list[InputFile]:
    """The files that arguments name, in a stable order, with `rows` not yet counted (0).

    Args:
        inputs: each a file, a glob, or a directory: of Parquet, JSONL or CSV files, or a dataset as Hugging Face's
            `datasets` saves it (save_to_disk: Arrow files).
        format: that of all files, where their names do not say: jsonl, text, csv, parquet or arrow.

    Raises BatchError for what is not there or not readable, names no known format, or is a pipe or a device.
    """
    raise NotImplementedError


def has_changed(file: InputFile) -> bool:
    """Whether a file is another than when the plan was made, by its size and the time of its last change."""
    raise NotImplementedError
