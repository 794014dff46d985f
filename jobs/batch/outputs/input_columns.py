"""The input's columns as an output with types has them: one type for each, the same in all files of the output.

Columns of Parquet, Arrow and CSV files keep their types. Those of JSON Lines get one that all their values have (see
inference.py); what has the name of a generated column is kept as `input_NAME`.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.types as pt

from ....core.errors import BatchError, UsageError
from .columns import renamed, some_of
from .types import TEXT, MisfitError, Type, arrow_array, arrow_type


@dataclass(frozen=True)
class InputColumns:
    """The columns that are kept.

    Args:
        schema: as in the output.
        names: in the input, in the same order.
        types: of those whose input is JSON.
    """

    schema: pa.Schema
    names: tuple[str, ...]
    types: Mapping[str, Type]

    def of_table(self, table: pa.Table) -> list[pa.ChunkedArray]:
        """The columns of a table of the input. Raises BatchError where they are of other types."""
        return [self._column(table, name, field) for name, field in zip(self.names, self.schema, strict=True)]

    def of_rows(self, rows: Sequence[Mapping[str, Any] | None]) -> list[pa.Array | pa.ChunkedArray]:
        """The columns of rows of JSON; None is a row without any. Raises BatchError."""
        return [self._array(rows, name, field) for name, field in zip(self.names, self.schema, strict=True)]

    def _column(self, table: pa.Table, name: str, field: pa.Field) -> pa.ChunkedArray:
        if name not in table.column_names:
            return pa.chunked_array([pa.nulls(len(table), field.type)])
        try:
            return table.column(name).cast(field.type)
        except pa.ArrowException as error:
            raise BatchError(f"column {name!r} cannot be written as {field.type}: {error}") from error

    def _array(
        self, rows: Sequence[Mapping[str, Any] | None], name: str, field: pa.Field
    ) -> pa.Array | pa.ChunkedArray:
        values = [None if row is None else row.get(name) for row in rows]
        try:
            if name in self.types:
                return arrow_array(values, self.types[name])
            return pa.array(values, field.type)
        except (MisfitError, pa.ArrowException) as error:
            raise BatchError(f"column {name!r} cannot be written as {field.type}: {error}") from error


def input_columns(
    schemas: Sequence[tuple[str, pa.Schema]],
    types: Mapping[str, Type],
    generated: Iterable[str],
    kept: tuple[str, ...] | None,
) -> InputColumns:
    """The columns of an input.

    Args:
        schemas: of the files whose columns have types, with their paths.
        types: of the columns of the other files.
        generated: names of generated columns.
        kept: columns that are kept; None: all.

    Raises UsageError where a column has types that no one type holds.
    """
    typed = unified(schemas, kept)
    rows = {name: type for name, type in types.items() if kept is None or name in kept}
    if types and not typed.names:  # what was asked for is a column, though no row has it
        rows |= {name: TEXT for name in kept or () if name not in rows}
    if not rows:
        chosen = typed if kept is None else pa.schema([typed.field(name) for name in kept if name in typed.names])
        return InputColumns(chosen.with_metadata(typed.metadata), tuple(chosen.names), {})
    names = {name: _name(name, type, rows, set(generated)) for name, type in rows.items()}
    fields = [pa.field(new, arrow_type(rows[name])) for name, new in names.items() if new is not None]
    own = tuple(name for name, new in names.items() if new is not None)
    if typed.names:  # files of both kinds
        schema = unified([("JSON Lines", pa.schema(fields)), ("files with types", typed)], None)
        others = tuple(name for name in schema.names[len(own) :])
        return InputColumns(schema, (*own, *others), {})
    order = own if kept is None else tuple(name for name in kept if name in own)
    return InputColumns(pa.schema([fields[own.index(name)] for name in order]), order, rows)


def check_names(
    schemas: Sequence[tuple[str, pa.Schema]],
    generated: Iterable[str],
    kept: tuple[str, ...] | None,
    *,
    is_all: bool,
) -> None:
    """Raise UsageError for columns with types that have the name of a generated one, and for names that are none.

    Args:
        schemas: of the files whose columns have types, with their paths.
        generated: names of generated columns, that of the answer first.
        kept: as asked for; None: all.
        is_all: whether the input has no other files, whose columns are not known.
    """
    present = {name for _, schema in schemas for name in schema.names}
    for path, schema in schemas:
        double = next((name for name in schema.names if schema.names.count(name) > 1), None)
        if double is not None:
            raise UsageError(f"{path} has several columns {double!r}: expected names that differ")
    for name in kept or ():
        if is_all and name not in present:
            raise UsageError(f"--columns {name}: the input has {some_of(present)}")
    first, *_ = generated = tuple(generated)
    for name in generated:
        if name in present and (kept is None or name in kept):
            option = "choose another name with --answer-column, or " if name == first else ""
            raise UsageError(
                f"the input has a column {name!r}, which is the name of a generated one: {option}"
                f"leave it out with --columns"
            )


def unified(schemas: Sequence[tuple[str, pa.Schema]], kept: tuple[str, ...] | None) -> pa.Schema:
    """One schema for all files. Raises UsageError where a column has types that no one type holds."""
    if not schemas:
        return pa.schema([])
    different = list({schema.remove_metadata(): schema for _, schema in schemas}.values())
    wanted = [_chosen(schema, kept) for schema in different]
    try:
        found = wanted[0] if len(wanted) == 1 else pa.unify_schemas(wanted, promote_options="permissive")
    except pa.ArrowException as error:
        raise UsageError(
            f"the input's files have columns of different types: {error}; --columns leaves some out"
        ) from error
    for schema in wanted:
        for field in schema:
            if pt.is_integer(field.type) and pt.is_floating(found.field(field.name).type):
                raise UsageError(
                    f"column {field.name!r} is {field.type} in some files of the input and "
                    f"{found.field(field.name).type} in others: expected one type; --columns leaves it out"
                )
    return found.with_metadata(schemas[0][1].metadata)


def _chosen(schema: pa.Schema, kept: tuple[str, ...] | None) -> pa.Schema:
    if kept is None:
        return schema
    return pa.schema([schema.field(name) for name in kept if name in schema.names], metadata=schema.metadata)


def _name(name: str, type: Type, all_names: Mapping[str, Type], generated: set[str]) -> str | None:
    """In the output; None for what gives way to a generated column, since it never has a value."""
    if name not in generated:
        return name
    return None if type.kind == "null" else renamed(name, all_names)
