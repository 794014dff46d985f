"""Arguments that a model writes as plain text, made JSON by what the function's schema says of them."""

import json
from collections.abc import Mapping
from typing import Any

_JSON_TYPES: tuple[tuple[str, type | tuple[type, ...]], ...] = (
    ("boolean", bool), ("null", type(None)), ("integer", int), ("number", (int, float)), ("object", dict),
    ("array", list), ("string", str),
)  # fmt: skip
_MOST_MEMBERS = 64  # of anyOf and the like that are looked at


def types_of(schema: Any) -> frozenset[str]:
    """The JSON types that a schema allows; none where it does not say."""
    if not isinstance(schema, Mapping):
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
        members = schema.get(name)
        if isinstance(members, list):
            return frozenset().union(*(types_of(member) for member in members[:_MOST_MEMBERS]))
    return frozenset()


def as_json(text: str, types: frozenset[str]) -> str:
    """The JSON that `text` stands for: a value of one of `types`, or of any where there are none, else a string."""
    value = text.strip()
    if "boolean" in types and value in ("True", "False"):
        return value.lower()
    if "null" in types and value == "None":
        return "null"
    try:
        parsed = json.loads(value)
    except (ValueError, RecursionError):
        return json.dumps(text, ensure_ascii=False)
    if types and not _fits(parsed, types):
        return json.dumps(text, ensure_ascii=False)
    return value


def _fits(value: Any, types: frozenset[str]) -> bool:
    kind = _type_of(value)
    return kind in types or (kind == "integer" and "number" in types)


def _type_of(value: Any) -> str:
    return next((name for name, kind in _JSON_TYPES if isinstance(value, kind)), "string")
