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
from .columns import GeneratedColumns
from .form import Form, form_of
from .parts import SOME, WHOLE, Part, others_in, parts_in, parts_of
from .place import Place, fingerprint
from .schemas import check_kept, file_schemas, has_types, row_types, types_of
from .types import JSON

if TYPE_CHECKING:
    import pyarrow as pa

    from .content import Content
    from .input_columns import InputColumns
    from .settled import SettledRows


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

    In a folder, `part-00000-of-00042.parquet` and so on each have the rows of shards that follow each other. Several
    drivers may write the same files: their contents are the same.
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
        options, plan = self._options, self._ledger.plan
        if options.rows_per_file < 1:
            raise UsageError(f"--rows-per-file {options.rows_per_file}: expected at least 1")
        place = Place(self._path, self._form, self._ledger.path)
        place.check(plan)
        self._check_columns()
        made_of = fingerprint(plan, self._form, options.rows_per_file, options.columns)
        place.claim(made_of, self._parts, self._ledger.is_sealed, self._ledger.others)

    def write_ready(self) -> None:
        """Write each file of an output folder whose rows are all there and that is missing. Of one file: nothing."""
        if not self._form.is_folder:
            return
        for part in self._parts:
            if part.name not in self._written and self._is_sealed(part):
                self._write_part(part)

    def finish(self) -> Path:
        """Write what is missing, now that all shards are sealed."""
        from .sinks import remove_leftovers

        if self._form.is_folder:
            for part in self._parts:
                self._write_part(part)
            for name in parts_in(self._path) - {part.name for part in self._parts}:
                (self._path / name).unlink(missing_ok=True)
        else:
            self._content.write(self._path, self._form, self._ledger.plan.shards, is_whole=True)
        remove_leftovers(self._path)
        return self._path

    def snapshot(self, path: Path) -> int:
        """Write the rows that are settled by now, in their order, into a file or folder of its own; how many.

        What is there is replaced; of a folder only files with names of parts. In the output's own place, files of a
        folder are named `some-00000-of-00003.parquet`, and give way to those of the whole output.
        """
        path = path.absolute()
        form = self._form if path == self._path else form_of(path, None, self._input_formats)
        shards = [shard for shard in self._ledger.plan.shards if self._rows.count(shard)]
        content = self._content_of(form, shards)
        if form.is_folder:
            return self._write_folder(path, form, content, shards)
        return content.write(path, form, shards, is_whole=False)

    @property
    def _input_formats(self) -> list[str]:
        return [file.format for file in self._ledger.plan.files]

    @cached_property
    def _form(self) -> Form:
        return form_of(self._path, self._options.format, self._input_formats)

    @cached_property
    def _parts(self) -> list[Part]:
        return parts_of(self._ledger.plan.shards, self._options.rows_per_file, self._form.format)

    @cached_property
    def _schemas(self) -> "list[tuple[str, pa.Schema]]":
        return file_schemas(self._ledger.plan, self._reader)

    @cached_property
    def _rows(self) -> "SettledRows":
        from .settled import SettledRows

        return SettledRows(self._ledger, self._reader)

    @cached_property
    def _content(self) -> "Content":
        """What the whole output has."""
        return self._content_of(self._form, None)

    def _content_of(self, form: Form, shards: Sequence[Shard] | None) -> "Content":
        """What an output of these shards has; None: all."""
        from .content import Content

        columns = GeneratedColumns.of(self._ledger.parameters, form)
        own = self._input_columns(form, columns, shards) if form.has_columns else None
        return Content(self._rows, self._ledger.parameters, columns, own, self._options.columns)

    def _input_columns(self, form: Form, columns: GeneratedColumns, shards: Sequence[Shard] | None) -> "InputColumns":
        from .input_columns import input_columns

        plan = self._ledger.plan
        if shards is None:
            types = row_types(plan, self._reader, self._ledger.path)
        else:
            untyped = (shard for shard in shards if not has_types(plan.files[shard.file].format))
            types = types_of(untyped, self._reader)
        if form.format == "csv":  # which has nothing nested: the values as they are
            types = {name: JSON if type.is_nested else type for name, type in types.items()}
        return input_columns(self._schemas, types, columns.names, self._options.columns)

    def _check_columns(self) -> None:
        columns = GeneratedColumns.of(self._ledger.parameters, self._form)
        columns.check()
        check_kept(self._ledger.plan, self._reader, self._schemas, self._options.columns, self._ledger.sync)
        if not self._schemas:
            return
        from .input_columns import check_names
        from .writers import check_schema

        is_all = all(has_types(format) for format in self._input_formats)
        check_names(self._schemas, columns.names, self._options.columns, is_all=is_all)
        if self._form.has_columns and is_all:
            check_schema(self._content.schema, self._form.format)

    def _is_sealed(self, part: Part) -> bool:
        return all(self._ledger.is_sealed(shard.number) for shard in part.shards)

    def _write_part(self, part: Part) -> None:
        if not (self._path / part.name).exists():
            self._content.write(self._path / part.name, self._form, part.shards, is_whole=True)
        self._written.add(part.name)

    def _write_folder(self, path: Path, form: Form, content: "Content", shards: Sequence[Shard]) -> int:
        if others := others_in(path):
            raise BatchError(f"{path} has {others[0]}, which is no part of an output; choose another folder")
        prefix = SOME if path == self._path else WHOLE
        beside = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
        try:
            beside.mkdir()
            parts = parts_of(shards, self._options.rows_per_file, form.format, prefix, self._rows.count)
            count = sum(content.write(beside / part.name, form, part.shards, is_whole=False) for part in parts)
            path.mkdir(exist_ok=True)
            for name in parts_in(path):
                (path / name).unlink()
            for part in parts:
                (beside / part.name).replace(path / part.name)
        except OSError as error:
            raise BatchError(f"cannot write {path}: {error.strerror}") from error
        finally:
            shutil.rmtree(beside, ignore_errors=True)
        return count
