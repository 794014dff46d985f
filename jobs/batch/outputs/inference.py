"""The types of columns whose input has none: found by looking at all values.

A column whose values have no type in common is of type `json`, JSON text: text and numbers, a list and an object,
numbers that neither a signed integer of 64 bits nor a double holds exactly, objects with too many different keys.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from .types import BOOL, FLOAT, INT, JSON, NULL, TEXT, WIDE, Field, Type

_EXACT = 1 << 53  # a double has all integers up to this
_MOST_FIELDS = 500  # of a struct; objects with more keys are data by key
_DEEPEST = 32
_SCALARS: dict[type, Type] = {str: TEXT, bool: BOOL, float: FLOAT, type(None): NULL}
_NUMBERS = {INT, WIDE, FLOAT}


class Inference:
    """Finds the types of columns, row by row."""

    def __init__(self) -> None:
        self._found: dict[str, Type] = {}

    def see(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Take note of rows."""
        found = self._found
        for row in rows:
            for name, value in row.items():
                seen = type_of(value)
                known = found.get(name)
                if known is None:
                    found[name] = seen
                elif seen is not known and seen != known:
                    found[name] = merged(known, seen)

    def types(self) -> dict[str, Type]:
        """By column, in the order in which they occurred; `null` for one that never has a value."""
        return {name: type if type is NULL else _final(type) for name, type in self._found.items()}


def type_of(value: Any, depth: int = 0) -> Type:
    """The type of one value as JSON has it."""
    known = _SCALARS.get(type(value))
    if known is not None:
        return known
    if isinstance(value, int):
        return INT if -_EXACT <= value <= _EXACT else WIDE if -(1 << 63) <= value < 1 << 63 else JSON
    if depth >= _DEEPEST:
        return JSON
    if isinstance(value, list):
        item = NULL
        for one in value:
            seen = type_of(one, depth + 1)
            item = item if seen is item else merged(item, seen)
        return Type("list", item)
    if isinstance(value, Mapping) and len(value) <= _MOST_FIELDS:
        return Type("struct", None, tuple(Field(name, type_of(one, depth + 1)) for name, one in value.items()))
    return JSON


def merged(one: Type, other: Type) -> Type:
    """The type that values of both have."""
    if one == other or other is NULL:
        return one
    if one is NULL:
        return other
    if one.kind == other.kind == "list":
        return Type("list", merged(one.item or NULL, other.item or NULL))
    if one.kind == other.kind == "struct":
        return _merged_structs(one, other)
    kinds = {one, other}
    if kinds <= _NUMBERS and kinds != {WIDE, FLOAT}:
        return WIDE if WIDE in kinds else FLOAT
    return JSON


def _merged_structs(one: Type, other: Type) -> Type:
    types = {field.name: field.type for field in one.fields}
    for field in other.fields:
        types[field.name] = merged(types.get(field.name, NULL), field.type)
    if len(types) > _MOST_FIELDS:
        return JSON
    return Type("struct", None, tuple(Field(name, type) for name, type in types.items()))


def _final(type: Type) -> Type:
    """The type as it is written: never a struct without fields, which Parquet lacks."""
    if type.kind == "list":
        return Type("list", _final(type.item or NULL))
    if type.kind == "struct":
        fields = tuple(Field(field.name, _final(field.type)) for field in type.fields)
        return Type("struct", None, fields) if fields else JSON
    return TEXT if type is NULL else type
