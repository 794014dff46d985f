"""Types of columns whose values are JSON, as Arrow has them, and fitting values to them."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Literal

import msgspec

if TYPE_CHECKING:
    import pyarrow as pa

Kind = Literal["null", "bool", "int", "wide", "float", "text", "json", "list", "struct"]


class Type(msgspec.Struct, frozen=True, omit_defaults=True, array_like=True):
    """The type of a column, or of what is in it.

    `int` and `wide` are both 64 bits with a sign; a double has all values of the first, and not of the second. A column
    of kind `json` has JSON text: values whose types have nothing in common.
    """

    kind: Kind
    item: "Type | None" = None  # of a list
    fields: "tuple[Field, ...]" = ()  # of a struct

    @property
    def is_nested(self) -> bool:
        """Whether it has other types in it."""
        return self.kind in ("list", "struct")

    @property
    def has_json(self) -> bool:
        """Whether values are to be made JSON text somewhere in it."""
        within = [field.type for field in self.fields] if self.item is None else [self.item]
        return self.kind == "json" or any(type.has_json for type in within)


class Field(msgspec.Struct, frozen=True, array_like=True):
    """One field of a struct."""

    name: str
    type: Type
    is_required: bool = False


class MisfitError(Exception):
    """A value is not of a type."""


NULL, BOOL, INT, WIDE, FLOAT, TEXT, JSON = (
    Type("null"), Type("bool"), Type("int"), Type("wide"), Type("float"), Type("text"), Type("json")
)  # fmt: skip


def json_text(value: Any) -> str:
    """A value as JSON text."""
    return msgspec.json.encode(value).decode()


def fit(value: Any, type: Type) -> Any:
    """The value as pyarrow takes it for a column of the type: fields that the type lacks are left out.

    Args:
        value: as JSON has it.
        type: what it should be. Null fits all types.

    Raises MisfitError.
    """
    if value is None:
        return None
    if type.kind == "json":
        return json_text(value)
    if type.kind == "list" and isinstance(value, list) and type.item is not None:
        item = type.item
        return [fit(one, item) for one in value]
    if type.kind == "struct" and isinstance(value, dict):
        return {field.name: _fit_field(value, field) for field in type.fields}
    return _fit_scalar(value, type)


def arrow_type(type: Type) -> "pa.DataType":
    """The type in Arrow. What was never seen to have a value is text."""
    import pyarrow as pa

    if type.kind == "list":
        return pa.list_(arrow_type(type.item or NULL))
    if type.kind == "struct":
        return pa.struct([(field.name, arrow_type(field.type)) for field in type.fields])
    scalars = {"bool": pa.bool_, "int": pa.int64, "wide": pa.int64, "float": pa.float64}
    return scalars.get(type.kind, pa.string)()


def arrow_array(values: Iterable[Any], type: Type) -> "pa.Array | pa.ChunkedArray":
    """Values of JSON as a column. Raises MisfitError."""
    import pyarrow as pa

    fitted = [fit(value, type) for value in values] if type.has_json else values
    try:
        return pa.array(fitted, arrow_type(type))
    except (pa.ArrowException, OverflowError) as error:
        raise MisfitError(str(error)) from error


def _fit_field(value: dict[str, Any], field: Field) -> Any:
    if field.is_required and field.name not in value:
        raise MisfitError(f"no {field.name}")
    return fit(value.get(field.name), field.type)


def _fit_scalar(value: Any, type: Type) -> Any:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if type.kind == "text" and isinstance(value, str):
        return value
    if type.kind == "bool" and isinstance(value, bool):
        return value
    if type.kind == "float" and is_number and abs(value) <= _LARGEST_DOUBLE:
        return float(value)
    if type.kind in ("int", "wide") and is_number and value == int(value) and -(1 << 63) <= value < 1 << 63:
        return int(value)
    raise MisfitError(f"expected {type.kind}")


_LARGEST_DOUBLE = 1.7976931348623157e308
