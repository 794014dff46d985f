"""Arguments that a model writes as plain text, made JSON by what the function's schema says of them."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from .references import resolved

_JSON_TYPES: tuple[tuple[str, type | tuple[type, ...]], ...] = (
    ("boolean", bool), ("null", type(None)), ("integer", int), ("number", (int, float)), ("object", dict),
    ("array", list), ("string", str),
)  # fmt: skip
_MOST_MEMBERS = 64  # of anyOf and the like that are looked at
_MOST_DEPTH = 3  # of these within each other
_MOST_SCHEMAS = 256  # that are looked at for one type


def types_of(schema: Any, root: Any = None) -> frozenset[str]:
    """The JSON types that a schema allows; none where it does not say. `root`: what its references point into."""
    return _types(schema, root, _MOST_DEPTH, iter(range(_MOST_SCHEMAS)))


def _types(schema: Any, root: Any, depth: int, left: Iterator[int]) -> frozenset[str]:
    """`left`: how many schemas may still be looked at; references can make any number of a few."""
    schema = resolved(schema, root)
    if not isinstance(schema, Mapping) or next(left, None) is None:
        return frozenset()
    type = schema.get("type")
    if isinstance(type, str):
        return frozenset([type])
    if isinstance(type, list):
        return frozenset(name for name in type if isinstance(name, str))
    values = [schema["const"]] if "const" in schema else schema.get("enum")
    if isinstance(values, list) and values:
        return frozenset(_type_of(value) for value in values)
    for name in ("anyOf", "oneOf"):
        found = schema.get(name)
        if isinstance(found, list) and depth:
            each = [_types(member, root, depth - 1, left) for member in found[:_MOST_MEMBERS]]
            return frozenset().union(*each) if all(each) else frozenset()
    return frozenset()


def as_json(text: str, types: frozenset[str]) -> str:
    """The JSON that `text` stands for: a value of one of `types`, or of any where there are none, else a string."""
    value = text.strip()
    if "boolean" in types and value in ("True", "False"):
        return value.lower()
    if "null" in types and value == "None":
        return "null"
    try:
        parsed = json.loads(value, parse_int=_whole, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return json.dumps(text, ensure_ascii=False)
    if types and not _fits(parsed, types):
        return json.dumps(text, ensure_ascii=False)
    return value


def _whole(digits: str) -> int:
    """Some integer: Python refuses to read those of thousands of digits, and only the type is asked for."""
    return len(digits)


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _fits(value: Any, types: frozenset[str]) -> bool:
    kind = _type_of(value)
    if kind == "number" and value.is_integer():  # 2.0 is one for JSON Schema
        return bool(types & {"number", "integer"})
    return kind in types or (kind == "integer" and "number" in types)


def _type_of(value: Any) -> str:
    return next((name for name, kind in _JSON_TYPES if isinstance(value, kind)), "string")
