"""Whether what is in the output's place is this batch's own, and of what it was made. Kept in the ledger's folder."""

import hashlib
from pathlib import Path

import msgspec

from ....core.errors import BatchError, RunDirectoryError
from ....core.files import read_text, write_atomic
from ..inputs.plan import Plan

_NAME = "output.json"


class _Claim(msgspec.Struct):
    path: str
    made_of: str  # hash of plan and options


def fingerprint(plan: Plan, *options: object) -> str:
    """A hash of the input's files as they are now, of how they are cut, and of whatever else is given."""
    cut = [(shard.file, shard.first, shard.rows) for shard in plan.shards]
    files = [(str(file.path), file.size, file.changed_ns) for file in plan.files]
    encoded = msgspec.json.encode((files, cut, options), enc_hook=str)
    return hashlib.blake2b(encoded, digest_size=16).hexdigest()


def claimed(ledger: Path, output: Path) -> str | None:
    """Under which fingerprint this batch has claimed the output's place; None where it has not. Raises BatchError."""
    try:
        text = read_text(ledger / _NAME)
        claim = None if text is None else msgspec.json.decode(text, type=_Claim)
    except (RunDirectoryError, msgspec.MsgspecError) as error:
        raise BatchError(f"cannot read {ledger / _NAME}: {error}") from error
    return claim.made_of if claim is not None and claim.path == str(output) else None


def claim(ledger: Path, output: Path, made_of: str) -> None:
    """From now on the output's place is this batch's. Raises BatchError."""
    try:
        write_atomic(ledger / _NAME, msgspec.json.encode(_Claim(str(output), made_of)).decode(), mode=None)
    except RunDirectoryError as error:
        raise BatchError(str(error)) from error
