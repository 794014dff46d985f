"""Columns of Arrow as values that JSON has. See lines.py for what becomes of types that JSON lacks."""

from collections.abc import Iterator
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

_ROWS_AT_ONCE = 256
_NOT_PYTHONS = (OverflowError, ValueError, KeyError)  # a time beyond Python's, a time zone that this machine lacks


def python_rows(table: pa.Table) -> Iterator[dict[str, Any]]:
    """The rows of a table, with values that msgspec writes as JSON."""
    names = table.column_names
    table = pa.table([_plain(column) for column in table.columns], names=names)
    for start in range(0, len(table), _ROWS_AT_ONCE):
        columns = [_values(column) for column in table.slice(start, _ROWS_AT_ONCE).columns]
        for values in zip(*columns, strict=True):
            yield dict(zip(names, values, strict=True))


def json_column(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A column as text: JSON where its values are nested, else what the value is in JSON, without quotes."""
    if pt.is_string(column.type) or pt.is_large_string(column.type):
        return column
    values = (row["value"] for row in python_rows(pa.table([column], names=["value"])))
    return pa.chunked_array([pa.array(map(_text, values), pa.string())])


def _values(column: pa.ChunkedArray) -> list[Any]:
    try:
        values: list[Any] = column.to_pylist()
    except UnicodeDecodeError:
        values = [_decoded(value) for value in column]
    except _NOT_PYTHONS:
        values = _as_text(column).to_pylist()
    return values


def _decoded(value: pa.Scalar) -> Any:
    """A value of which some is not UTF-8: text as far as it is, nothing of what is nested."""
    try:
        return value.as_py()
    except UnicodeDecodeError:
        is_text = pt.is_string(value.type) or pt.is_large_string(value.type)
        return value.as_buffer().to_pybytes().decode(errors="replace") if is_text else None


def _text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    text = msgspec.json.encode(value).decode()
    return text if isinstance(value, list | dict | bool | int | float) else str(msgspec.json.decode(text))


def _plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """The column in types whose values Python has."""
    wanted = _target(column.type)
    if wanted == column.type:
        return column
    try:
        return column.cast(wanted)
    except pa.ArrowInvalid:  # what is finer than microseconds
        return _as_text(column)


def _as_text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """The column with all times in it as text: finer, earlier or later than Python's."""
    text = column.cast(_target(column.type, as_text=True))
    if pt.is_timestamp(column.type):
        return pc.replace_substring(text, " ", "T", max_replacements=1)
    return text


def _target(type: pa.DataType, as_text: bool = False) -> pa.DataType:
    """The type to which values are cast before they are taken into Python."""
    if isinstance(type, pa.BaseExtensionType):
        return _target(type.storage_type, as_text)
    if pt.is_dictionary(type):
        return _target(type.value_type, as_text)
    if pt.is_struct(type):
        return pa.struct([field.with_type(_target(field.type, as_text)) for field in type])
    if pt.is_map(type):
        return pa.map_(_target(type.key_type, as_text), _target(type.item_type, as_text))
    if pt.is_fixed_size_list(type):
        return pa.list_(_target(type.value_type, as_text))
    if pt.is_list(type):
        return pa.list_(_target(type.value_type, as_text))
    if pt.is_large_list(type):
        return pa.large_list(_target(type.value_type, as_text))
    return _scalar_target(type, as_text)


def _scalar_target(type: pa.DataType, as_text: bool) -> pa.DataType:
    if as_text and (pt.is_timestamp(type) or pt.is_time(type) or pt.is_date(type)):
        return pa.string()
    if as_text and pt.is_duration(type):
        return pa.int64()
    if pt.is_timestamp(type) and type.unit == "ns":
        return pa.timestamp("us", type.tz)
    if pt.is_time64(type) and type.unit == "ns":
        return pa.time64("us")
    if pt.is_duration(type) and type.unit == "ns":
        return pa.duration("us")
    return type
