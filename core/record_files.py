"""One record in one file of the run directory."""

from pathlib import Path
from typing import TypeVar

import msgspec

from . import files
from .errors import RunDirectoryError
from .records import VERSION, DeploymentRecord, NodeRecord, RendezvousRecord, RouterRecord, WorkerRecord

Record = TypeVar("Record", WorkerRecord, NodeRecord, RendezvousRecord, RouterRecord, DeploymentRecord)
_MOST_BYTES_OF_JOBS = 16 << 20  # a DeploymentRecord has a line for each of up to 10,000 workers


def write_record(path: Path, record: Record) -> None:
    """Replace the file by the record. Raises RunDirectoryError."""
    files.write_atomic(path, files.encode_json(record))


def read_record(path: Path, kind: type[Record]) -> Record | None:
    """The record in a file, None if there is no file.

    Raises RunDirectoryError for a file that is no such record, of another version, or not ours to believe.
    """
    text = files.read_private(path, most_bytes=_MOST_BYTES_OF_JOBS if kind is DeploymentRecord else files.MOST_BYTES)
    if text is None:
        return None
    try:
        record = msgspec.convert(files.parse_json(path, text), kind)
    except msgspec.ValidationError as error:
        raise RunDirectoryError(f"{path} is not a {kind.__name__}: {error}") from error
    if record.version != VERSION:
        raise RunDirectoryError(f"{path} has version {record.version}; this slurminfer reads {VERSION}")
    return record
