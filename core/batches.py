"""How far batches are that run through a deployment, as their drivers tell it: `batches/ID.json` in the run directory.

Each driver owns one file, replaces it while it works, and removes it at its end. One that is silent was killed.
"""

import os
from pathlib import Path
from typing import Annotated

import msgspec

from . import files
from .errors import DamagedFileError, RunDirectoryError
from .records import VERSION

TELL_EVERY_S = 5.0
STALE_S = 60.0  # without a change of its file: the driver counts as gone
FORGOTTEN_S = 3600.0  # then whoever tells of a batch next removes the file
MOST_SHOWN = 100  # files that a router reads
_MOST_BYTES = 16 * 1024
_NAME_LENGTH = 200

_Count = Annotated[int, msgspec.Meta(ge=0)]
_Amount = Annotated[float, msgspec.Meta(ge=0)]


class BatchRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One driver of a batch. Rows are those of all its drivers, rates those of this one. Times are Unix seconds."""

    version: int = VERSION
    batch: Annotated[str, msgspec.Meta(max_length=_NAME_LENGTH)]  # the same for all drivers of one batch
    name: Annotated[str, msgspec.Meta(max_length=_NAME_LENGTH)]  # of its output, for people
    written_at: float
    began_at: float
    total: _Count
    answered: _Count
    failed: _Count
    rows_per_s: _Amount = 0.0  # of all drivers, of late
    prompt_tokens_per_s: _Amount = 0.0  # of late
    completion_tokens_per_s: _Amount = 0.0
    in_flight: _Count = 0
    left_s: _Amount | None = None
    left_low_s: _Amount | None = None  # with left_high_s a range that has the true time in 90 of 100 cases
    left_high_s: _Amount | None = None


def write_batch(folder: Path, driver: str, record: BatchRecord) -> None:
    """Replace the record of a driver. Raises RunDirectoryError."""
    files.make_directory(folder)
    files.write_atomic(folder / f"{driver}.json", files.encode_json(record))


def remove_batch(folder: Path, driver: str) -> None:
    """Remove the record of a driver, if there is one. Raises RunDirectoryError."""
    files.remove(folder / f"{driver}.json")


def read_batches(folder: Path) -> dict[str, BatchRecord]:
    """The records by driver, MOST_SHOWN at most; files that are none are passed over.

    Raises RunDirectoryError where the folder is there and cannot be read.
    """
    found = {}
    for name in _names(folder)[:MOST_SHOWN]:
        record = _read(folder / name)
        if record is not None:
            found[name.removesuffix(".json")] = record
    return found


def forget_silent(folder: Path, now: float) -> None:
    """Remove files that nobody has changed for FORGOTTEN_S. Raises RunDirectoryError."""
    for name in _names(folder):
        try:
            age_s = now - os.stat(folder / name).st_mtime
        except OSError:
            continue  # removed by its driver
        if age_s > FORGOTTEN_S:
            files.remove(folder / name)


def _names(folder: Path) -> list[str]:
    try:
        return sorted(name for name in os.listdir(folder) if name.endswith(".json") and not name.startswith("."))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise RunDirectoryError(f"cannot read {folder}: {error.strerror}") from error


def _read(path: Path) -> BatchRecord | None:
    try:
        text = files.read_private(path, most_bytes=_MOST_BYTES)
        record = None if text is None else msgspec.convert(files.parse_json(path, text), BatchRecord)
    except (RunDirectoryError, DamagedFileError, msgspec.ValidationError):
        return None
    return record if record is not None and record.version == VERSION else None
