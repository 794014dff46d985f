"""From sealed shards and the input to the output."""

import secrets
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from ....core.errors import BatchError, UsageError
from ..inputs.plan import Shard
from ..inputs.reader import Reader
from ..ledger.ledger import Ledger
from .claim import claim, claimed, fingerprint
from .columns import GeneratedColumns
from .form import Form, form_of
from .parts import Part, others_in, parts_in, parts_of
from .schemas import file_schemas, has_types, row_types, types_of
from .types import JSON

if TYPE_CHECKING:
    from .content import Content


@dataclass(frozen=True, kw_only=True)
class OutputOptions:
    """Where and how a batch's output is written."""

    path: Path  # a file whose name says its format, or a folder
    format: str | None = None  # jsonl, csv or parquet; by default that of the file's name, in a folder the input's
    rows_per_file: int = 100_000  # at least, in a folder
    columns: tuple[str, ...] | None = None  # of the input that are kept, in this order; None: all


class Export:
    """Writes the output of a ledger. All methods may take long: call them in a thread.

    They raise BatchError. A file is written beside its place and renamed when it is whole and on the disk.

    A file is the batch's own once it has claimed a place where nothing was; it never replaces anything else. In a
    folder, `part-00000-of-00042.parquet` and so on each have the rows of shards that follow each other. Several drivers
    may write the same files: their contents are the same.
    """

    def __init__(self, ledger: Ledger, reader: Reader, options: OutputOptions) -> None:
        self._ledger, self._reader, self._options = ledger, reader, options
        self._path = options.path.absolute()
        self._written: set[str] = set()

    def check(self) -> None:
        """Before anything is sent: raise UsageError or BatchError where the output cannot be written.

        Such as a column of the input that has the name of a generated one, a folder that holds other files, an output
        that is the input.
        """
        if self._options.rows_per_file < 1:
            raise UsageError(f"--rows-per-file {self._options.rows_per_file}: expected at least 1")
        self._check_place()
        self._check_columns()
        self._claim_place()

    def write_ready(self) -> None:
        """Write each file of an output folder whose rows are all there and that is missing. Of one file: nothing."""
        if not self._form.is_folder:
            return
        for part in self._parts:
            if part.name not in self._written and all(self._ledger.is_sealed(shard.number) for shard in part.shards):
                self._write_part(part)

    def finish(self) -> Path:
        """Write what is missing, now that all shards are sealed."""
        from .sinks import remove_leftovers

        if self._form.is_folder:
            for part in self._parts:
                self._write_part(part)
        else:
            self._content.write(self._path, self._form, self._ledger.plan.shards)
        remove_leftovers(self._path)
        return self._path

    def snapshot(self, path: Path) -> int:
        """Write the rows that are settled by now, in their order, into a file or folder of its own; how many.

        What is there is replaced; of a folder only files with names of parts.
        """
        path = path.absolute()
        form = self._form if path == self._path else form_of(path, None, self._input_formats)
        shards = [shard for shard in self._ledger.plan.shards if any(True for _ in self._ledger.records(shard.number))]
        content = self._content_of(form, shards)
        if not form.is_folder:
            return content.write(path, form, shards)
        return self._write_folder(path, form, content, shards)

    @property
    def _input_formats(self) -> list[str]:
        return [file.format for file in self._ledger.plan.files]

    @cached_property
    def _form(self) -> Form:
        return form_of(self._path, self._options.format, self._input_formats)

    @cached_property
    def _parts(self) -> list[Part]:
        return _parts(self._ledger.plan.shards, self._options.rows_per_file, self._form)

    @cached_property
    def _content(self) -> "Content":
        return self._content_of(self._form, None)

    def _content_of(self, form: Form, shards: Sequence[Shard] | None) -> "Content":
        """What is written; None: of all shards."""
        from .content import Content
        from .input_columns import input_columns
        from .settled import SettledRows

        columns = GeneratedColumns.of(self._ledger.parameters, form)
        own = None
        if form.has_columns:
            plan = self._ledger.plan
            if shards is None:
                types = row_types(plan, self._reader, self._ledger.path)
            else:
                untyped = [shard for shard in shards if not has_types(plan.files[shard.file].format)]
                types = types_of(untyped, self._reader)
            if form.format == "csv":  # which has nothing nested: the values as they are
                types = {name: JSON if type.is_nested else type for name, type in types.items()}
            own = input_columns(file_schemas(plan, self._reader), types, columns.names, self._options.columns)
        rows = SettledRows(self._ledger, self._reader)
        return Content(rows, self._ledger.parameters, columns, own, self._options.columns)

    def _check_place(self) -> None:
        path = self._path
        for file in self._ledger.plan.files:
            if path == file.path or _is_same(path, file.path):
                raise BatchError(f"{path} is the input; choose another output")
            if self._form.is_folder and path in file.path.parents:
                raise BatchError(f"{path} has the input {file.path}; choose another output")
        if path.exists() and not (path.is_dir() if self._form.is_folder else path.is_file()):
            raise BatchError(f"cannot write {path}: it is neither a file nor a folder")
        if not path.parent.is_dir():
            raise BatchError(f"cannot write {path}: there is no folder {path.parent}")

    def _check_columns(self) -> None:
        from .input_columns import check_names

        columns = GeneratedColumns.of(self._ledger.parameters, self._form)
        schemas = file_schemas(self._ledger.plan, self._reader)
        if not schemas:
            return
        is_all = all(has_types(format) for format in self._input_formats)
        check_names(schemas, columns.names, self._options.columns, is_all=is_all)
        if self._form.has_columns and is_all:
            from .writers import check_schema

            check_schema(self._content.schema, self._form.format)

    def _claim_place(self) -> None:
        """Make the place this batch's, and remove parts whose rows are others by now, or are not all settled."""
        options = self._options
        made_of = fingerprint(self._ledger.plan, self._form, options.rows_per_file, options.columns)
        before = claimed(self._ledger.path, self._path)
        if before is None:
            self._check_vacant()
        elif before != made_of and self._ledger.others:
            raise BatchError(f"another driver at work writes {self._path} with other options, or from another input")
        if self._form.is_folder:
            self._make_folder()
            named = {part.name: part for part in self._parts}
            for name in parts_in(self._path):
                part = named.get(name)
                if part is None or before != made_of or not self._is_sealed(part):
                    (self._path / name).unlink(missing_ok=True)
        claim(self._ledger.path, self._path, made_of)

    def _check_vacant(self) -> None:
        if self._form.is_folder:
            others = sorted({*others_in(self._path), *parts_in(self._path)})
            if others:
                raise BatchError(
                    f"{self._path} has {others[0]}, which this batch has not written; choose another output"
                )
        elif self._path.exists():
            raise BatchError(f"{self._path} is there, and this batch has not written it; choose another output")

    def _make_folder(self) -> None:
        try:
            self._path.mkdir(exist_ok=True)
        except OSError as error:
            raise BatchError(f"cannot write {self._path}: {error.strerror}") from error

    def _is_sealed(self, part: Part) -> bool:
        return all(self._ledger.is_sealed(shard.number) for shard in part.shards)

    def _write_part(self, part: Part) -> None:
        if not (self._path / part.name).exists():
            self._content.write(self._path / part.name, self._form, part.shards)
        self._written.add(part.name)

    def _write_folder(self, path: Path, form: Form, content: "Content", shards: Sequence[Shard]) -> int:
        if others := others_in(path):
            raise BatchError(f"{path} has {others[0]}, which is no part of an output; choose another folder")
        beside = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
        try:
            beside.mkdir()
            count = 0
            for part in _parts(shards, self._options.rows_per_file, form, content):
                count += content.write(beside / part.name, form, part.shards)
            path.mkdir(exist_ok=True)
            for name in parts_in(path):
                (path / name).unlink()
            for name in parts_in(beside):
                (beside / name).replace(path / name)
        except OSError as error:
            raise BatchError(f"cannot write {path}: {error.strerror}") from error
        finally:
            shutil.rmtree(beside, ignore_errors=True)
        return count


def _is_same(path: Path, other: Path) -> bool:
    try:
        return path.samefile(other)
    except OSError:
        return False


def _parts(shards: Sequence[Shard], least_rows: int, form: Form, content: "Content | None" = None) -> list[Part]:
    return parts_of(shards, least_rows, form.format, None if content is None else content.rows.count)
