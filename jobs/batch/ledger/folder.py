"""What a ledger keeps of the batch as a whole: its parameters, and the plan of a generation."""

import os
import time
from pathlib import Path
from typing import Any

import msgspec

from ....core import files
from ....core.errors import BatchError, RunDirectoryError
from ..inputs.plan import Plan
from ..parameters import Parameters
from .layout import FORMAT_VERSION, PARAMETERS


class BatchFile(msgspec.Struct, frozen=True, kw_only=True):
    """`batch.json`."""

    version: int = FORMAT_VERSION
    begun_at: float  # Unix time
    parameters: Parameters


def read_batch(ledger: Path) -> BatchFile | None:
    """`batch.json`; None where there is none. Raises BatchError for one that is damaged or of another version."""
    path = ledger / PARAMETERS
    try:
        text = files.read_text(path)
        if text is None:
            return None
        return files.parse_versioned(path, text, BatchFile, FORMAT_VERSION, what="batch's ledger")
    except RunDirectoryError as error:
        raise BatchError(f"{error}; choose another output, or remove {ledger} to begin anew") from error


def read_parameters(ledger: Path, mine: Parameters) -> Parameters:
    """The ledger's parameters; `mine`, from now on, where it has none yet. Raises BatchError."""
    found = read_batch(ledger)
    if found is not None:
        return found.parameters
    fresh = BatchFile(begun_at=time.time(), parameters=mine)
    try:
        files.claim(ledger / PARAMETERS, msgspec.json.encode(fresh).decode() + "\n")
    except RunDirectoryError as error:
        raise BatchError(str(error)) from error
    found = read_batch(ledger)  # another driver may have been quicker
    return mine if found is None else found.parameters


def write_plan(path: Path, plan: Plan) -> None:
    """Write a plan. Raises OSError."""
    with path.open("wb") as file:
        file.write(msgspec.msgpack.encode(plan, enc_hook=_encode))
        file.flush()
        os.fsync(file.fileno())


def read_plan(path: Path) -> Plan:
    """A plan that `write_plan` has written. Raises BatchError."""
    try:
        return msgspec.msgpack.decode(path.read_bytes(), type=Plan, dec_hook=_decode)
    except OSError as error:
        raise BatchError(f"cannot read {path}: {error.strerror}") from error
    except (msgspec.MsgspecError, ValueError) as error:
        raise BatchError(f"{path} is damaged: {error}; remove {path.parent.parent} to begin anew") from error


def _encode(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    raise NotImplementedError(type(value).__name__)


def _decode(shape: type[Any], value: Any) -> Any:
    if shape is Path:
        return Path(value)
    raise NotImplementedError(shape.__name__)
