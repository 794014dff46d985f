"""The place of a batch's output: whether it may be written, and of what the files are made that are there.

A batch claims the place of its output in its ledger's folder while nothing is there. What is there later is its own.
"""

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from ....core.errors import BatchError, RunDirectoryError
from ....core.files import read_text, write_atomic
from ..inputs.plan import InputFile, Plan
from .form import Form
from .parts import Part, others_in, parts_in

_NAME = "output.json"


class _Claim(msgspec.Struct):
    path: str
    made_of: str


def fingerprint(plan: Plan, *options: object) -> str:
    """A hash of the input's files as they are now, of how they are cut, and of whatever else is given."""
    cut = [(shard.file, shard.first, shard.rows) for shard in plan.shards]
    files = [(str(file.path), file.size, file.changed_ns) for file in plan.files]
    encoded = msgspec.json.encode((files, cut, options), enc_hook=str)
    return hashlib.blake2b(encoded, digest_size=16).hexdigest()


@dataclass(frozen=True)
class Place:
    """Where an output is to be.

    Args:
        path: absolute.
        form: of the output.
        ledger: the folder of the batch's ledger.
    """

    path: Path
    form: Form
    ledger: Path

    def check(self, plan: Plan) -> None:
        """Raise BatchError for what can be no output of this input."""
        path = self.path
        self.check_apart(plan.files)
        if path.exists() and not (path.is_dir() if self.form.is_folder else path.is_file()):
            raise BatchError(f"cannot write {path}: it is neither a file nor a folder")
        if not path.parent.is_dir():
            raise BatchError(f"cannot write {path}: there is no folder {path.parent}")

    def check_apart(self, files: Iterable[InputFile]) -> None:
        """Raise BatchError where it is a file of the input, or a folder that has one."""
        path = self.path
        for file in files:
            if path == file.path or _is_same(path, file.path):
                raise BatchError(f"{path} is the input; choose another output")
            if self.form.is_folder and path in file.path.parents:
                raise BatchError(f"{path} has the input {file.path}; choose another output")

    def claim(self, made_of: str, parts: list[Part], is_sealed: Callable[[int], bool], others: int) -> None:
        """Make the place this batch's. Raises BatchError where something else is there.

        Files of a folder are removed whose rows are others by now, or not all settled.

        Args:
            made_of: hash of everything that decides what is in which file.
            parts: the files of a folder.
            is_sealed: whether all rows of a shard are settled.
            others: how many other drivers are at work.
        """
        before = self._claimed()
        if before is None:
            self._check_vacant()
        elif before != made_of and others:
            raise BatchError(f"another driver at work writes {self.path} with other options, or from another input")
        if self.form.is_folder:
            _make_folder(self.path)
            right = {part.name for part in parts if all(is_sealed(shard.number) for shard in part.shards)}
            for name in parts_in(self.path) if before != made_of else parts_in(self.path) - right:
                (self.path / name).unlink(missing_ok=True)
        try:
            write_atomic(self.ledger / _NAME, _encoded(_Claim(str(self.path), made_of)), mode=None)
        except RunDirectoryError as error:
            raise BatchError(str(error)) from error

    def _claimed(self) -> str | None:
        """What the files are made of that this batch has written; None: it has not claimed the place."""
        try:
            text = read_text(self.ledger / _NAME)
            claim = None if text is None else msgspec.json.decode(text, type=_Claim)
        except (RunDirectoryError, msgspec.MsgspecError) as error:
            raise BatchError(f"cannot read {self.ledger / _NAME}: {error}") from error
        return claim.made_of if claim is not None and claim.path == str(self.path) else None

    def _check_vacant(self) -> None:
        advice = "is not this batch's: remove it, or choose another output"
        if self.form.is_folder:
            found = sorted({*others_in(self.path), *parts_in(self.path)})
            if found:
                raise BatchError(f"{self.path} has {found[0]}, which {advice}")
        elif self.path.exists():
            raise BatchError(f"{self.path} is there, and {advice}")


def _encoded(claim: _Claim) -> str:
    return msgspec.json.encode(claim).decode()


def _make_folder(path: Path) -> None:
    try:
        path.mkdir(exist_ok=True)
    except OSError as error:
        raise BatchError(f"cannot write {path}: {error.strerror}") from error


def _is_same(path: Path, other: Path) -> bool:
    try:
        return path.samefile(other)
    except OSError:
        return False
