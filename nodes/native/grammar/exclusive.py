"""Whether no value can be valid by two of several schemas: then `oneOf` says the same as `anyOf`.

The library proves this for schemas that are written in place, not for references, which is how tools write unions.
"""

from collections.abc import Sequence
from itertools import combinations, islice
from typing import Any

from .references import MOST_HOPS, is_within, pointed_to

_MOST_SCHEMAS = 64
_MOST_NAMES = 256  # of each, and values: every two are compared
_MOST_TELLING = 16  # properties of two schemas by which they may differ
_TYPES = frozenset({"object", "array", "string", "number", "boolean", "null"})


def are_exclusive(schemas: Sequence[Any], root: Any) -> bool:
    """Whether it is plain that at most one of `schemas` takes any value. `root`: what references point into."""
    if len(schemas) > _MOST_SCHEMAS:
        return False
    resolved = [_resolve(schema, root) for schema in schemas]
    if any(_is_long(schema) for schema in resolved):
        return False
    return all(_differ(one, other, root) for one, other in combinations(resolved, 2))


def _is_long(schema: Any) -> bool:
    """Whether to compare it with all the others would take long."""
    found = [schema.get(name) for name in ("required", "enum", "type")] if isinstance(schema, dict) else []
    return any(isinstance(value, list) and len(value) > _MOST_NAMES for value in found)


def _differ(one: Any, other: Any, root: Any) -> bool:
    if not isinstance(one, dict) or not isinstance(other, dict):
        return False
    if not _types(one) & _types(other) or _apart(_values(one), _values(other)):
        return True
    if _types(one) & _types(other) != {"object"}:
        return False
    names = _required(one) & _required(other)
    properties = [_properties(schema) for schema in (one, other)]
    names &= properties[0].keys() & properties[1].keys()
    told = islice(names, _MOST_TELLING)
    return any(_apart(*(_values(_resolve(found[name], root)) for found in properties)) for name in told)


def _resolve(schema: Any, root: Any) -> Any:
    """What a schema that is a reference points to. Keywords beside the reference only narrow that down."""
    for _ in range(MOST_HOPS):
        pointer = schema.get("$ref") if isinstance(schema, dict) else None
        if not is_within(pointer):
            return schema
        schema = pointed_to(pointer, root)
    return None


def _types(schema: dict[str, Any]) -> frozenset[str]:
    found = schema.get("type", list(_TYPES))
    names = [found] if isinstance(found, str) else found
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        return _TYPES
    return frozenset("number" if name == "integer" else name for name in names)


def _values(schema: Any) -> frozenset[tuple[str, Any]] | None:
    """The only values that a schema takes, if they are told one by one and are no lists and objects."""
    if not isinstance(schema, dict):
        return None
    values = [schema["const"]] if "const" in schema else schema.get("enum")
    if (
        not isinstance(values, list)
        or len(values) > _MOST_NAMES
        or any(isinstance(value, list | dict) for value in values)
    ):
        return None
    return frozenset(("number" if _is_number(value) else type(value).__name__, value) for value in values)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _apart(one: frozenset[Any] | None, other: frozenset[Any] | None) -> bool:
    return one is not None and other is not None and not one & other


def _properties(schema: dict[str, Any]) -> dict[str, Any]:
    found = schema.get("properties")
    return found if isinstance(found, dict) else {}


def _required(schema: dict[str, Any]) -> frozenset[str]:
    found = schema.get("required")
    return frozenset(name for name in found if isinstance(name, str)) if isinstance(found, list) else frozenset()
