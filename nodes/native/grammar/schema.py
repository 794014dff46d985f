"""JSON schemas checked before they are compiled: what is not obeyed is refused, with its place."""

import re
from collections.abc import Iterator
from typing import Any

import msgspec

from .errors import ConstraintError
from .exclusive import are_exclusive
from .keywords import (
    ANNOTATION_PREFIX,
    ANNOTATIONS,
    COUNTS,
    FORMATS,
    NOTHING,
    OBEYED,
    ONE_SCHEMA,
    REFUSED,
    SCHEMA_LISTS,
    SCHEMA_MAPS,
    UNDEFINED_FORMATS,
)
from .patterns import fault

MAX_DEPTH = 64
_UNICODE_ESCAPE = re.compile(rb"(?<!\\)(?:\\\\)*\\u")
_MAX_SHOWN = 60
_INSTEAD = {
    "nullable": 'write {"type": [..., "null"]}',
    "uniqueItems": "leave it out (in pydantic, list in place of set), and check the answer for it",
}
_RESERVED = "x-guidance"  # by which the library takes options


def checked(schema: dict[str, Any] | bool, whitespace: str) -> dict[str, Any]:
    """The schema as the library gets it. Raises ConstraintError for a keyword that is not obeyed."""
    if isinstance(schema, bool):
        schema = {} if schema else {"enum": []}
    # A name may not be written with \u: as "\u0061", `a` would pass for an additional property.
    options: dict[str, Any] = {"lenient": False, "coerce_one_of": False, "json_allowed_escapes": 'nrbtf\\"'}
    options |= {"whitespace_pattern": whitespace} if whitespace else {"whitespace_flexible": False}
    return {_RESERVED: options, **_Walk(schema).clean(schema, "", 0)}


_BOUNDS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")
_MOST_INTEGER = 2**63 - 1
_NUDGE = 2.0**-30
_MOST_NUDGED = 2**22  # of larger numbers, the sum would be rounded
# The library lets every minute have a second 60; RFC 3339, 5.6, only some.
_NO_LEAP_SECOND = "^[^:]*:[0-5][0-9]:[0-5]"


class _Walk:
    """One schema without its annotations, and with nothing left that the library would not obey."""

    def __init__(self, root: Any) -> None:
        self._root = root

    def clean(self, schema: Any, place: str, depth: int) -> Any:
        if isinstance(schema, bool):
            return schema
        if not isinstance(schema, dict):
            raise ConstraintError(f"{_at(place)}: expected a schema, an object or true or false")
        if depth > MAX_DEPTH:
            raise ConstraintError(f"{_at(place)}: nested too deep: expected at most {MAX_DEPTH} levels")
        members = dict(self._members(schema, place, depth))
        if schema.get("format") in ("time", "date-time"):
            members["allOf"] = [*members.get("allOf", ()), {"pattern": _NO_LEAP_SECOND}]
        return members

    def _members(self, schema: dict[str, Any], place: str, depth: int) -> Iterator[tuple[str, Any]]:
        for keyword, value in schema.items():
            here = f"{place}/{keyword[:_MAX_SHOWN]}"
            if keyword in ANNOTATIONS or keyword.startswith(ANNOTATION_PREFIX):
                continue
            if keyword in NOTHING and value is NOTHING[keyword]:
                continue
            if keyword not in OBEYED:
                raise _refusal(keyword, here)
            _require_writable(keyword, value, here)
            _require_patterns(keyword, value, here)
            if keyword == "format":
                if not isinstance(value, str) or value not in UNDEFINED_FORMATS:
                    yield keyword, _format(value, here)
            elif keyword == "minProperties":
                if (least := _least_properties(schema, here)) is not None:
                    yield keyword, least
            elif keyword in _BOUNDS and "integer" in str(schema.get("type")) and _is_beyond(keyword, value):
                raise ConstraintError(f"{_at(here)}: {value} is not supported for integers: expected one of 64 bits")
            elif keyword in ("exclusiveMinimum", "exclusiveMaximum"):
                yield keyword, _exclusive(keyword, value, schema)
            elif keyword in ONE_SCHEMA:
                yield keyword, self.clean(value, here, depth + 1)
            elif keyword in SCHEMA_LISTS:
                yield self._list_name(keyword, schema), self._list(value, here, depth)
            elif keyword in SCHEMA_MAPS:
                yield keyword, self._map(value, here, depth)
            elif keyword in COUNTS and isinstance(value, float) and value.is_integer():
                yield keyword, int(value)
            else:
                yield keyword, value

    def _list_name(self, keyword: str, schema: dict[str, Any]) -> str:
        """`oneOf` is `anyOf` where that is plain; the library refuses others."""
        schemas = schema[keyword]
        plain = keyword == "oneOf" and "anyOf" not in schema and isinstance(schemas, list)
        return "anyOf" if plain and are_exclusive(schemas, self._root) else keyword

    def _list(self, value: Any, place: str, depth: int) -> list[Any]:
        if not isinstance(value, list):
            raise ConstraintError(f"{_at(place)}: expected a list of schemas")
        return [self.clean(item, f"{place}/{index}", depth + 1) for index, item in enumerate(value)]

    def _map(self, value: Any, place: str, depth: int) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise ConstraintError(f"{_at(place)}: expected an object of schemas")
        return {name: self.clean(item, f"{place}/{name[:_MAX_SHOWN]}", depth + 1) for name, item in value.items()}


def _least_properties(schema: dict[str, Any], place: str) -> Any:
    """`minProperties`; None where so many are required. Additional ones may have one name twice, which counts once."""
    least, required = schema["minProperties"], schema.get("required")
    if not isinstance(least, int | float) or isinstance(least, bool) or least <= 1:
        return int(least) if isinstance(least, float) and least.is_integer() else least
    if isinstance(required, list) and len(required) >= least:
        return None
    raise ConstraintError(f"{_at(place)}: {least} is not supported: expected 0, 1, or no more than are required")


def _is_beyond(keyword: str, value: Any) -> bool:
    """Whether the library would take a smaller number for the bound, and let others through."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and (value >= _MOST_INTEGER if "inimum" in keyword else value <= -_MOST_INTEGER)


def _exclusive(keyword: str, value: Any, schema: dict[str, Any]) -> Any:
    """A bound, a little nearer to the others where it is a whole number.

    The library lets 0 through between 0 and 0.5, and -0 between -0.5 and 0.
    """
    is_whole = isinstance(value, int | float) and not isinstance(value, bool) and value == value // 1
    if not is_whole or abs(value) > _MOST_NUDGED or schema.get("type") == "integer":
        return value
    if keyword == "exclusiveMinimum":
        return value + _NUDGE if value >= 0 else value
    return value - _NUDGE if value <= 0 else value


def _format(value: Any, place: str) -> str:
    if isinstance(value, str) and value in FORMATS:
        return value
    raise ConstraintError(f"{_at(place)}: {str(value)[:_MAX_SHOWN]!r} is not supported: expected {', '.join(FORMATS)}")


def _require_writable(keyword: str, value: Any, place: str) -> None:
    """Raise ConstraintError for characters that JSON writes with \\u only, where the answer would have to have them."""
    told = list(value) if keyword == "properties" and isinstance(value, dict) else value
    if keyword in ("const", "enum", "required", "properties") and _UNICODE_ESCAPE.search(msgspec.json.encode(told)):
        raise ConstraintError(f"{_at(place)}: control characters but for \\b, \\f, \\n, \\r and \\t are not supported")


def _require_patterns(keyword: str, value: Any, place: str) -> None:
    """Raise ConstraintError for a regular expression that the answer would not be held to."""
    named = value if keyword == "patternProperties" and isinstance(value, dict) else ()
    for pattern in [value] if keyword == "pattern" else named:
        if isinstance(pattern, str) and (reason := fault(pattern)):
            raise ConstraintError(f"{_at(place)}: {reason}")


def _refusal(keyword: str, place: str) -> ConstraintError:
    if keyword in REFUSED:
        instead = _INSTEAD.get(keyword, "leave it out, and check the answer for it")
        return ConstraintError(f"{_at(place)}: the keyword {keyword!r} is not supported; {instead}")
    return ConstraintError(
        f"{_at(place)}: JSON Schema has no keyword {keyword[:_MAX_SHOWN]!r}; names of your own begin with x-"
    )


def _at(place: str) -> str:
    """A JSON pointer as a message says it."""
    return f"at {place}" if place else "at the root"
