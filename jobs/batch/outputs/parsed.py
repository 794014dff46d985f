"""The column `parsed`: answers that follow a JSON schema, as values of the schema's types."""

import json
from typing import Any

import msgspec

from .inference import merged, type_of
from .types import BOOL, FLOAT, INT, JSON, NULL, TEXT, Field, MisfitError, Type, fit

_SCALARS = {"string": TEXT, "boolean": BOOL, "integer": INT, "number": FLOAT, "null": NULL}
_decode = msgspec.json.Decoder().decode


def schema_type(text: str) -> Type:
    """The type of what follows a JSON schema.

    Objects with properties become structs, arrays with one type of items lists. What has no one type in Arrow becomes
    JSON text: objects without properties, alternatives, what refers to itself.

    Args:
        text: of the schema, a JSON object or true.
    """
    root = json.loads(text)
    found = _type(root, root, ())
    return JSON if found is NULL else found


def parse(text: object, type: Type) -> Any:
    """An answer's value for a column of the type, see `fit`; None where it is no JSON of that shape."""
    return _parsed(text, type)[1]


def parse_as_json(text: object, type: Type) -> Any:
    """An answer's JSON value, whole; None where it is not of the type's shape."""
    return _parsed(text, type)[0]


def _parsed(text: object, type: Type) -> tuple[Any, Any]:
    if not isinstance(text, str):
        return None, None
    try:
        value = _decode(text)
        return value, fit(value, type)
    except (MisfitError, msgspec.MsgspecError, ValueError, RecursionError):
        return None, None


def _type(schema: Any, root: Any, within: tuple[str, ...]) -> Type:
    if not isinstance(schema, dict):
        return JSON
    if "$ref" in schema:
        return _referred(schema["$ref"], root, within)
    alternatives = schema.get("anyOf") or schema.get("oneOf") or schema.get("allOf")
    if isinstance(alternatives, list):
        return _alternatives([_type(one, root, within) for one in alternatives])
    if "const" in schema:
        return _simple(type_of(schema["const"]))
    kinds = schema.get("type")
    if isinstance(kinds, list):
        return _alternatives([_type({**schema, "type": kind}, root, within) for kind in kinds])
    if kinds is None and isinstance(schema.get("enum"), list):
        return _alternatives([_simple(type_of(value)) for value in schema["enum"]])
    if kinds == "object" or (kinds is None and "properties" in schema):
        return _struct(schema, root, within)
    if kinds == "array":
        return _list(schema, root, within)
    return _SCALARS.get(kinds, JSON) if isinstance(kinds, str) else JSON


def _referred(target: Any, root: Any, within: tuple[str, ...]) -> Type:
    if not isinstance(target, str) or not target.startswith("#") or target in within:
        return JSON
    found = root
    for step in target.removeprefix("#").split("/")[1:]:
        name = step.replace("~1", "/").replace("~0", "~")
        if not isinstance(found, dict) or name not in found:
            return JSON
        found = found[name]
    return _type(found, root, (*within, target))


def _alternatives(types: list[Type]) -> Type:
    found = NULL
    for type in types:
        if JSON in (found, type):
            return JSON
        if found.kind == type.kind == "struct" and found != type:
            return JSON  # what is required in one is none of the other
        found = merged(found, type)
    return found


def _struct(schema: dict[str, Any], root: Any, within: tuple[str, ...]) -> Type:
    properties, required = schema.get("properties"), schema.get("required")
    if not isinstance(properties, dict) or not properties:
        return JSON
    needed = required if isinstance(required, list) else []
    types = {name: _type(one, root, within) for name, one in properties.items()}
    fields = (Field(name, TEXT if type is NULL else type, name in needed) for name, type in types.items())
    return Type("struct", None, tuple(fields))


def _list(schema: dict[str, Any], root: Any, within: tuple[str, ...]) -> Type:
    item = NULL if "prefixItems" in schema else _type(schema.get("items"), root, within)
    return JSON if item is NULL else Type("list", item)


def _simple(type: Type) -> Type:
    return JSON if type.kind in ("list", "struct") else type
