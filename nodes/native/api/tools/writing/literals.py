"""Arguments as literals, as a grammar that a model's own way of writing them is held to."""

import json
from collections.abc import Mapping
from typing import Any

from ....grammar.constraint import Choices, Constraint, Either, Items, JsonSchema, Row, Text
from ....grammar.errors import ConstraintError
from ....grammar.keywords import ANNOTATION_PREFIX, ANNOTATIONS
from ..arguments import types_of
from ..references import resolved
from .members import Members, members, narrows_reference
from .plain_strings import plain_string

_MOST_DEPTH = 8  # of what is written as Python does; below, JSON's true, false and null are read as well
_MOST_ITEMS = 256  # of a list that has a limit
_OF_LISTS = {"type", "items", "minItems", "maxItems"}
_OF_STRINGS = {"type", "minLength", "maxLength", "pattern", "format"}
_OF_NUMBERS = {"type", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"}
_OF = {"array": _OF_LISTS, "string": _OF_STRINGS, "integer": _OF_NUMBERS, "number": _OF_NUMBERS}
_WORDS = {True: "True", False: "False", None: "None"}


def python_arguments(schema: Mapping[str, Any]) -> Constraint:
    """`a=1, b="x"`. Raises ConstraintError for a schema that cannot be written so."""
    found = members(schema)
    for name in found.properties:
        if not name.isidentifier():
            raise ConstraintError(f"the name {name[:80]!r}: expected one that Python could have")
    items = [
        (Row([f"{name}=", _python(each, found, 0)]), name in found.required) for name, each in found.properties.items()
    ]
    if found.additional is False:
        return Items(items, ", ")
    key = Text(patterns=["[A-Za-z_][A-Za-z0-9_]{0,63}"], excluded=list(found.properties))
    return Items(items, ", ", Row([key, "=", _python(found.additional, found, 0)]))


def _python(schema: Any, of: Members, depth: int) -> Constraint:
    of.count()
    whole = resolved(schema, of.definitions)
    if not isinstance(whole, Mapping) or depth > _MOST_DEPTH or narrows_reference(schema, of.definitions):
        return JsonSchema(of.whole(schema))
    says = _says(whole)
    values = [whole["const"]] if says == {"const"} else whole.get("enum") if "const" not in says else None
    if says <= {"enum", "const", "type"} and isinstance(values, list) and not any(map(_is_nested, values)):
        fitting = [value for value in values if not says & {"type"} or _is_of(value, types_of({"type": whole["type"]}))]
        return Choices([_written(value) for value in fitting])
    options = _options(whole, says)
    if options:
        return Either([_python(option, of, depth + 1) for option in options])
    if says == {"type"} and whole["type"] == "boolean":
        return Choices(["True", "False"])
    if says == {"type"} and whole["type"] == "null":
        return Choices(["None"])
    if says <= _OF_LISTS and whole.get("type") == "array":
        return _list(whole, _python(whole.get("items", True), of, depth + 1), ", ")
    if whole.get("type") == "object" and says <= {"type", "properties", "required", "additionalProperties"}:
        return _python_object(whole, of, depth)
    return JsonSchema(of.whole(schema))


def _python_object(schema: Mapping[str, Any], of: Members, depth: int) -> Constraint:
    found = members(schema)
    if found.additional is not False or "additionalProperties" not in schema:
        return JsonSchema(of.whole(dict(schema)))
    items = [
        (Row([f"{json.dumps(name, ensure_ascii=False)}: ", _python(each, of, depth + 1)]), name in found.required)
        for name, each in found.properties.items()
    ]
    return Row(["{", Items(items, ", "), "}"])


def _options(schema: Mapping[str, Any], says: set[str]) -> list[Any]:
    """The schemas of which the value obeys one."""
    if says == {"anyOf"} and isinstance(schema["anyOf"], list):
        return list(schema["anyOf"])
    types = schema.get("type")
    if not isinstance(types, list) or not says <= _OF_LISTS | _OF_STRINGS | _OF_NUMBERS:
        return []
    return [{key: schema[key] for key in says & _OF.get(name, {"type"})} | {"type": name} for name in types]


def _says(schema: Mapping[str, Any]) -> set[str]:
    """The keywords that constrain the value."""
    return {name for name in schema if name not in ANNOTATIONS and not name.startswith(ANNOTATION_PREFIX)}


def _is_nested(value: Any) -> bool:
    return isinstance(value, list | dict)


def _is_of(value: Any, types: frozenset[str]) -> bool:
    own = types_of({"const": value})
    return bool(own & types) or (own == {"integer"} and "number" in types)


def _written(value: Any) -> str:
    return _WORDS[value] if value is None or isinstance(value, bool) else json.dumps(value, ensure_ascii=False)


def _list(schema: Mapping[str, Any], item: Constraint, separator: str) -> Constraint:
    least, most = schema.get("minItems", 0), schema.get("maxItems")
    for name, count in (("minItems", least), ("maxItems", most or 0)):
        if not isinstance(count, int) or not 0 <= count <= _MOST_ITEMS:
            raise ConstraintError(f"{name}: expected 0 to {_MOST_ITEMS} in the format of this model's calls")
    if most is not None and least > most:
        raise ConstraintError(f"minItems = {least}, maxItems = {most}: no list can have so many")
    if most is None:
        return Row(["[", Items([(item, True)] * least, separator, item), "]"])
    return Row(["[", Items([(item, index < least) for index in range(most)], separator), "]"])


class GemmaStyle:
    """`a:1,b:<|"|>x<|"|>`, with `quote` around strings."""

    def __init__(self, quote: str) -> None:
        self._quote = quote

    def arguments(self, schema: Mapping[str, Any]) -> Constraint:
        """Raises ConstraintError for a schema that cannot be written so."""
        found = members(schema)
        return self._members(found, found, 0)

    def _members(self, found: Members, of: Members, depth: int) -> Constraint:
        for name in found.properties:
            if not name or name != name.strip() or any(character in name for character in ":{}[],<\n"):
                raise ConstraintError(f"the name {name[:80]!r}: expected one without :{{}}[],< and space around it")
        items = [
            (Row([f"{name}:", self._value(each, of, depth)]), name in found.required)
            for name, each in found.properties.items()
        ]
        if found.additional is False:
            return Items(items, ",")
        key = Text(patterns=["[A-Za-z_][A-Za-z0-9_]{0,63}"], excluded=list(found.properties))
        return Items(items, ",", Row([key, ":", self._value(found.additional, of, depth)]))

    def _value(self, schema: Any, of: Members, depth: int) -> Constraint:
        of.count()
        whole = resolved(schema, of.definitions)
        if narrows_reference(schema, of.definitions):
            raise ConstraintError(
                "$ref: not supported together with other keywords in the format of this model's calls"
            )
        if whole is True or whole == {}:
            return Either([self._string({}), JsonSchema({"type": ["number", "boolean", "null"]})])
        if not isinstance(whole, Mapping) or depth > _MOST_DEPTH:
            raise ConstraintError("the schema is nested too deep, or is none")
        says, types = _says(whole), types_of(whole, of.definitions)
        options = _options(whole, says)
        if options:
            return Either([self._value(option, of, depth + 1) for option in options])
        if types == {"string"}:
            return self._string(whole)
        if says == {"enum"} and not any(map(_is_nested, whole["enum"])):
            return Either([self._value({"const": value}, of, depth + 1) for value in whole["enum"]])
        if types and types <= {"number", "integer", "boolean", "null"}:
            return JsonSchema(dict(whole))
        if types == {"array"} and says <= _OF_LISTS:
            return _list(whole, self._value(whole.get("items", True), of, depth + 1), ",")
        if types == {"object"}:
            inside = members({"additionalProperties": True, **whole})
            return Row(["{", self._members(inside, of, depth + 1), "}"])
        raise ConstraintError(f"{', '.join(sorted(says))[:200]}: not supported in the format of this model's calls")

    def _string(self, schema: Mapping[str, Any]) -> Constraint:
        return Row([self._quote, plain_string(schema, self._quote, "", edges=True)])
