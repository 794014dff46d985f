"""What a request wants its answer to look like, by whichever of the many names: OpenAI's, vLLM's, SGLang's."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from ...grammar.constraint import ANY_OBJECT, Choices, Constraint, Ebnf, JsonSchema, Lark, Regex
from ..errors import ApiError, short
from .generation import GenerationRequest
from .json_text import decoded, require_short
from .structural import structural_tag

_OPTIONS = ("disable_any_whitespace", "disable_fallback", "whitespace_pattern")  # of structured_outputs


@dataclass(frozen=True, slots=True)
class Structure:
    """What the answer must look like, and the field that says so."""

    param: str
    constraint: Constraint


def structure_of(body: GenerationRequest) -> Structure | None:
    """What `body` wants; None if it says nothing. Raises ApiError for what is no constraint, and for two at once."""
    found = list(_given(body))
    if len(found) > 1:
        first, second = found[0].param, found[1].param
        raise ApiError(400, f"{first} and {second} exclude each other: expected one of them", param=second)
    if not found:
        return None
    whitespace = body.guided_whitespace_pattern
    if whitespace and isinstance(found[0].constraint, JsonSchema):
        return replace(found[0], constraint=replace(found[0].constraint, whitespace=whitespace))
    return found[0]


def _given(body: GenerationRequest) -> Iterator[Structure]:
    if body.response_format and (wanted := _response_format(body.response_format)) is not None:
        yield Structure("response_format", wanted)
    if body.structured_outputs:
        yield from _structured_outputs(body.structured_outputs)
    for name in ("guided_json", "guided_regex", "guided_choice", "guided_grammar", "json_schema", "regex", "ebnf"):
        value = getattr(body, name)
        if value or value == {}:
            yield Structure(name, _CONSTRAINTS[name](name, value))


def _response_format(format: dict[str, Any]) -> Constraint | None:
    match format.get("type"):
        case None | "text":
            return None
        case "json_object":
            return _without_schema(format)
        case "json_schema":
            return _wrapped_schema(format.get("json_schema"))
        case "structural_tag":
            return structural_tag("response_format", format)
    expected = "expected text, json_object, json_schema or structural_tag"
    param = "response_format.type"
    raise ApiError(400, f"{param} = {short(format['type'])}: {expected}", param=param)


def _without_schema(format: dict[str, Any]) -> Constraint:
    """Any object. llama.cpp and others take a schema here, which must not be dropped without a word."""
    for name in ("schema", "json_schema"):
        if format.get(name) is not None:
            param = f"response_format.{name}"
            expected = 'with a schema, type is "json_schema", and json_schema is {"name": string, "schema": object}'
            raise ApiError(400, f"{param} = {short(format[name])}: not for json_object; {expected}", param=param)
    return ANY_OBJECT


def _wrapped_schema(wrapped: Any) -> Constraint:
    param = "response_format.json_schema"
    if not isinstance(wrapped, dict):
        raise ApiError(400, f'{param} = {short(wrapped)}: expected {{"name": string, "schema": object}}', param=param)
    if "schema" not in wrapped:
        raise ApiError(400, f"{param}.schema: missing; expected a JSON schema, an object", param=f"{param}.schema")
    strict = wrapped.get("strict")
    if not isinstance(strict, bool | None):
        raise ApiError(400, f"{param}.strict = {short(strict)}: expected true or false", param=f"{param}.strict")
    return _schema(f"{param}.schema", wrapped["schema"])


def _structured_outputs(fields: dict[str, Any]) -> Iterator[Structure]:
    """vLLM's object, in which one of several keys says it."""
    known = {"json": _schema, "regex": _regex, "choice": _choices, "grammar": _grammar, "json_object": _any_object,
             "structural_tag": structural_tag}  # fmt: skip
    for name in fields:
        if name not in known and name not in _OPTIONS:
            param = f"structured_outputs.{name[:80]}"
            expected = ", ".join([*known, *_OPTIONS])
            raise ApiError(400, f"{param}: no such key: expected {expected}", param=param)
    for name, make in known.items():
        if fields.get(name) not in (None, False):
            param = f"structured_outputs.{name}"
            wanted = make(param, fields[name])
            yield Structure(param, _with_whitespace(wanted, fields))


def _with_whitespace(wanted: Constraint, fields: Mapping[str, Any]) -> Constraint:
    if not isinstance(wanted, JsonSchema):
        return wanted
    if fields.get("disable_any_whitespace") is True:
        return replace(wanted, whitespace="")
    pattern = fields.get("whitespace_pattern")
    return replace(wanted, whitespace=_text("structured_outputs.whitespace_pattern", pattern)) if pattern else wanted


def _schema(param: str, value: Any) -> Constraint:
    """A JSON schema, or its text."""
    if isinstance(value, str):
        value = decoded(param, value, "a JSON schema")
    if not isinstance(value, dict | bool):
        raise ApiError(400, f"{param} = {short(value)}: expected a JSON schema, an object", param=param)
    return JsonSchema(value)


def _any_object(param: str, value: Any) -> Constraint:
    if value is not True:
        raise ApiError(400, f"{param} = {short(value)}: expected true or false", param=param)
    return ANY_OBJECT


def _regex(param: str, value: Any) -> Constraint:
    return Regex(_text(param, value))


def _choices(param: str, value: Any) -> Constraint:
    if not isinstance(value, list) or not value or not all(isinstance(text, str) for text in value):
        raise ApiError(400, f"{param} = {short(value)}: expected a list of strings", param=param)
    return Choices(tuple(value))


def _grammar(param: str, value: Any) -> Constraint:
    """Lark, or EBNF, which vLLM takes under the same name: that has `::=`."""
    text = _text(param, value)
    return Ebnf(text) if "::=" in text else Lark(text)


def _ebnf(param: str, value: Any) -> Constraint:
    return Ebnf(_text(param, value))


def _text(param: str, value: Any) -> str:
    if not isinstance(value, str):
        raise ApiError(400, f"{param} = {short(value)}: expected a string", param=param)
    require_short(param, value)
    return value


_CONSTRAINTS: Mapping[str, Callable[[str, Any], Constraint]] = {
    "guided_json": _schema,
    "guided_regex": _regex,
    "guided_choice": _choices,
    "guided_grammar": _grammar,
    "json_schema": _schema,
    "regex": _regex,
    "ebnf": _ebnf,
}
