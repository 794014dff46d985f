"""Structural tags: free text with passages that must look like something, as SGLang and vLLM take them.

There are two forms: `structures` with `triggers`, and the newer `format`, a tree of which these parts are taken:
json_schema, regex, grammar, const_string, tag, triggered_tags and tags_with_separator.
"""

from typing import Any

from ...grammar.constraint import Constraint, Ebnf, JsonSchema, Lark, Regex, Row, Tag, Tags
from ..errors import ApiError, short
from .json_text import decoded

_MAX_TAGS = 256
_PARTS = "json_schema, regex, grammar, const_string, tag, triggered_tags or tags_with_separator"


def structural_tag(param: str, value: Any) -> Constraint:
    """The constraint in `value`, an object or its JSON text. Raises ApiError."""
    if isinstance(value, str):
        value = decoded(param, value, "JSON")
    if not isinstance(value, dict):
        raise ApiError(400, f"{param} = {short(value)}: expected an object", param=param)
    if "format" in value:
        return _part(f"{param}.format", value["format"])
    tags = [_structure(f"{param}.structures[{i}]", tag) for i, tag in enumerate(_list(param, value, "structures"))]
    return Tags(tags, _texts(param, value, "triggers"))


def _structure(param: str, value: Any) -> Tag:
    value = _object(param, value)
    schema = value.get("schema", {})
    return Tag(_string(param, value, "begin"), JsonSchema(_schema(f"{param}.schema", schema)), _end(param, value))


def _part(param: str, value: Any) -> Constraint:
    value = _object(param, value)
    match value.get("type"):
        case "json_schema":
            return JsonSchema(_schema(f"{param}.json_schema", value.get("json_schema")))
        case "regex":
            return Regex(_string(param, value, "pattern"))
        case "grammar":
            text = _string(param, value, "grammar")
            return Ebnf(text) if "::=" in text else Lark(text)
        case "const_string":
            return Row([_string(param, value, "value")])
        case "tag":
            return _tag(param, value)
        case "triggered_tags":
            return Tags(_tags(param, value), _texts(param, value, "triggers"), **_counts(param, value))
        case "tags_with_separator":
            separator = _string(param, value, "separator")
            return Tags(_tags(param, value), separator=separator, **_counts(param, value))
    raise ApiError(400, f"{param}.type = {short(value.get('type'))}: expected {_PARTS}", param=f"{param}.type")


def _tags(param: str, value: dict[str, Any]) -> list[Tag]:
    return [_tag(f"{param}.tags[{i}]", tag) for i, tag in enumerate(_list(param, value, "tags"))]


def _tag(param: str, value: Any) -> Tag:
    value = _object(param, value)
    content = _part(f"{param}.content", value.get("content"))
    return Tag(_string(param, value, "begin"), content, _end(param, value))


def _end(param: str, value: dict[str, Any]) -> str:
    return _string(param, value, "end") if "end" in value else ""


def _counts(param: str, value: dict[str, Any]) -> dict[str, Any]:
    """How many tags there may be."""
    flags = {name: value.get(name, False) for name in ("at_least_one", "stop_after_first")}
    for name, flag in flags.items():
        if not isinstance(flag, bool):
            raise ApiError(400, f"{param}.{name} = {short(flag)}: expected true or false", param=f"{param}.{name}")
    return {"least": int(flags["at_least_one"]), "most": 1 if flags["stop_after_first"] else None}


def _schema(param: str, value: Any) -> dict[str, Any] | bool:
    if not isinstance(value, dict | bool):
        raise ApiError(400, f"{param} = {short(value)}: expected a JSON schema, an object", param=param)
    return value


def _object(param: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ApiError(400, f"{param} = {short(value)}: expected an object", param=param)
    return value


def _list(param: str, value: dict[str, Any], name: str) -> list[Any]:
    found, param = value.get(name), f"{param}.{name}"
    if not isinstance(found, list) or not 1 <= len(found) <= _MAX_TAGS:
        raise ApiError(400, f"{param} = {short(found)}: expected a list of 1 to {_MAX_TAGS}", param=param)
    return found


def _texts(param: str, value: dict[str, Any], name: str) -> list[str]:
    found = _list(param, value, name)
    if not all(isinstance(text, str) and text for text in found):
        raise ApiError(400, f"{param}.{name} = {short(found)}: expected strings", param=f"{param}.{name}")
    return found


def _string(param: str, value: dict[str, Any], name: str) -> str:
    found = value.get(name)
    if not isinstance(found, str):
        raise ApiError(400, f"{param}.{name} = {short(found)}: expected a string", param=f"{param}.{name}")
    return found
