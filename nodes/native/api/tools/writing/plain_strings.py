"""Strings that a model writes as they are, without quotes and escapes, held to what a schema says of them."""

from collections.abc import Mapping
from typing import Any

from ....grammar.constraint import Choices, Constraint, Row, Text
from ....grammar.errors import ConstraintError
from ....grammar.keywords import ANNOTATION_PREFIX, ANNOTATIONS, UNDEFINED_FORMATS
from ....grammar.patterns import fault

_READ = ("type", "enum", "const", "minLength", "maxLength", "pattern", "format", "$defs", "definitions")
_ANY = "(?:.|\n)"
_DAY = "(?:0[1-9]|1[0-9]|2[0-8])"
_DATE = (
    rf"(?:[0-9]{{4}}-(?:(?:0[1-9]|1[0-2])-{_DAY}|(?:0[13-9]|1[0-2])-(?:29|30)|(?:0[13578]|1[02])-31)"
    r"|(?:[0-9]{2}(?:0[48]|[2468][048]|[13579][26])|(?:[02468][048]|[13579][26])00)-02-29)"
)
_TIME = r"(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\.[0-9]{1,9})?(?:Z|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])"
_OCTET = "(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
_LABEL = "[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_HOST = rf"{_LABEL}(?:\.{_LABEL}){{0,3}}"
FORMATS: Mapping[str, str] = {
    "date": _DATE,
    "time": _TIME,
    "date-time": f"{_DATE}T{_TIME}",
    "uuid": "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}",
    "ipv4": rf"{_OCTET}(?:\.{_OCTET}){{3}}",
    "hostname": _HOST,
    "email": rf"[A-Za-z0-9_+-]{{1,40}}(?:\.[A-Za-z0-9_+-]{{1,20}})?@{_HOST}",
}


def plain_string(schema: Mapping[str, Any], end: str, around: str = "", *, edges: bool = False) -> Constraint:
    """A string that `schema` allows, up to and with `end`. Raises ConstraintError for a keyword that is not obeyed.

    Args:
        schema: whose type is a string.
        end: a marker. Strings with it cannot be written, and so are not.
        around: before and behind the string, such as line ends; if empty, the string neither begins nor ends with one.
        edges: it may do so, as these are a part of it.
    """
    for name in schema:
        if name not in _READ and name not in ANNOTATIONS and not name.startswith(ANNOTATION_PREFIX):
            raise ConstraintError(f"{name}: not supported for a string that the model does not write as JSON")
    values = _values(schema, end, bool(around) or edges)
    if values is not None:
        return Row([around, Choices(values), around, end])
    excluded = [] if around or edges else [f"\n{_ANY}*|{_ANY}*\n"]
    return Text(end, [f"{around}(?:{pattern}){around}" for pattern in _patterns(schema)], excluded)


def _values(schema: Mapping[str, Any], end: str, edges: bool) -> list[str] | None:
    """The only strings that there are, where the schema lists them. `edges`: with line ends there, too."""
    values = [schema["const"]] if "const" in schema else schema.get("enum")
    if values is None:
        return None
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise ConstraintError("enum: expected strings, as type says")
    if ("const" in schema and "enum" in schema) or any(
        name in schema for name in ("pattern", "minLength", "maxLength")
    ):
        raise ConstraintError("enum and const: not supported together with other keywords")
    fitting = [value for value in values if end not in value and (edges or value == value.strip("\n"))]
    if not fitting:
        raise ConstraintError(f"enum: no value can be written, as the format ends values by {end}")
    return fitting


def _patterns(schema: Mapping[str, Any]) -> list[str]:
    least, most = _length(schema, "minLength") or 0, _length(schema, "maxLength")
    found = [f"{_ANY}{{{least},{'' if most is None else most}}}" if least or most is not None else f"{_ANY}*"]
    if "pattern" in schema:
        found.append(_whole(schema["pattern"]))
    name = schema.get("format")
    if name is not None and name not in UNDEFINED_FORMATS:
        if name not in FORMATS:
            expected = ", ".join(FORMATS)
            raise ConstraintError(f"format {str(name)[:60]!r}: not supported here: expected {expected}")
        found.append(FORMATS[name])
    return found


def _length(schema: Mapping[str, Any], name: str) -> int | None:
    value = schema.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or value != int(value) or value < 0:
        raise ConstraintError(f"{name}: expected a whole number")
    return int(value)


def _whole(pattern: Any) -> str:
    """A regular expression for all of the string, made of one that must match somewhere in it."""
    if not isinstance(pattern, str):
        raise ConstraintError("pattern: expected a string")
    if reason := fault(pattern):
        raise ConstraintError(f"pattern: {reason}")
    if "|" in pattern and (pattern.startswith("^") or pattern.endswith("$")):
        # An anchor may be that of one branch only: `^(?:a|b)$` is understood, `^a|b$` is not.
        inside = pattern.removeprefix("^").removesuffix("$")
        if not (inside.startswith("(") and inside.endswith(")") and inside.count("(") == 1):
            return pattern
    begin = "" if pattern.startswith("^") else f"{_ANY}*"
    end = "" if pattern.endswith("$") and not pattern.endswith("\\$") else f"{_ANY}*"
    inside = pattern.removeprefix("^")
    return f"{begin}(?:{inside.removesuffix('$') if not end else inside}){end}"
