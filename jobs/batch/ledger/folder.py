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
from .layout import FORMAT_VERSION, PARAMETERS, Generation


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
    try:
        files.claim(ledger / PARAMETERS, _encoded(mine))
    except RunDirectoryError as error:
        raise BatchError(str(error)) from error
    found = read_batch(ledger)  # another driver may have been quicker
    return mine if found is None else found.parameters


def require_same(ledger: Path, mine: Parameters) -> None:
    """Raise BatchError where a ledger has results of other parameters than `mine`, or cannot be read."""
    found = read_batch(ledger)
    if found is not None and _has_records(ledger):
        _refuse_others(ledger, found.parameters, mine)


def agree(ledger: Path, mine: Parameters, *, may_replace: bool) -> None:
    """Have `mine` be the ledger's parameters. Raises BatchError where it has others that stay.

    Args:
        ledger: its folder.
        mine: parameters of this driver.
        may_replace: no other driver is at work, so that parameters without results may give way.
    """
    there = read_parameters(ledger, mine)
    if not may_replace or _has_records(ledger):
        _refuse_others(ledger, there, mine)
    elif there.differences(mine):
        try:
            files.write_atomic(ledger / PARAMETERS, _encoded(mine), mode=None)
        except RunDirectoryError as error:
            raise BatchError(str(error)) from error


def _encoded(parameters: Parameters) -> str:
    return msgspec.json.encode(BatchFile(begun_at=time.time(), parameters=parameters)).decode() + "\n"


def _refuse_others(ledger: Path, there: Parameters, mine: Parameters) -> None:
    """Raise BatchError where a ledger's parameters are others than `mine`."""
    if differences := there.differences(mine):
        raise BatchError(
            f"{ledger} is of other parameters: {'; '.join(differences)}; "
            "ask as before, choose another output, or remove that folder to begin anew"
        )


def _has_records(ledger: Path) -> bool:
    try:
        folders = (folder for made in Generation.all(ledger) for folder in (made.segments, made.sealed))
        return any(_is_written(folder / name) for folder in folders for name in os.listdir(folder))
    except OSError as error:
        raise BatchError(f"cannot read {ledger}: {error.strerror}") from error


def _is_written(path: Path) -> bool:
    try:
        return path.stat().st_size > 0
    except FileNotFoundError:  # another driver has sealed it: what it says is in a file that was listed, or comes
        return True


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
