"""TOML files as typed, frozen sections; whatever is wrong in one is a SpecError with key, value and what is valid."""

import difflib
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from types import UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import msgspec
import tomli_w

from .errors import SpecError

_CONTROL = re.compile("[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029]")
_NOWHERE = re.compile(r"(?!)")
_TYPE_WORDS = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "str": "text in quotes",
    "array": "a list in [ ]",
    "object": "a table",
}


class Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of all parts of a spec."""


SectionT = TypeVar("SectionT", bound=Section)


def read_toml(path: Path) -> str:
    """The file's text. Raises SpecError."""
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        expected = f"cannot read it: {error.strerror}; expected the path of a TOML file"
        raise SpecError(str(path), None, expected) from error
    except UnicodeDecodeError as error:
        raise SpecError(str(path), None, f"cannot read it: {error}; expected a TOML file in UTF-8") from error


def parse_toml(
    text: str, root: type[SectionT], several_lines: re.Pattern[str] = _NOWHERE, path: Path = Path("file")
) -> SectionT:
    """TOML text as a `root`. Raises SpecError.

    Args:
        text: of the file.
        root: what the file as a whole is.
        several_lines: searched in the dotted path of a key; matches where a string may have newlines.
        path: of the file, for errors that concern all of it.
    """
    try:
        raw = tomllib.loads(text)
    except ValueError as error:  # TOMLDecodeError, or a plain one for a number of thousands of digits
        raise SpecError(str(path), None, f"not TOML: {error}") from error
    except RecursionError as error:
        raise SpecError(str(path), None, "tables or lists are nested too deeply") from error
    _refuse_control("", raw, several_lines)
    try:
        return msgspec.convert(raw, root)
    except msgspec.ValidationError as error:
        raise _explain(str(error), raw, root) from error


def dump_toml(section: Section) -> str:
    """The section as TOML, without what is None; `parse_toml` gives it back."""
    return tomli_w.dumps(_without_none(msgspec.to_builtins(section)))


def set_keys(section: Section) -> dict[str, Any]:
    """The keys of a section that have another value than their default, as they are written in TOML."""
    defaults = {info.name: info.default for info in msgspec.structs.fields(section)}
    found = {name: getattr(section, name) for name in defaults}
    own = {name: value for name, value in found.items() if value != defaults[name]}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in own.items()}


def _refuse_control(path: str, value: Any, several_lines: re.Pattern[str]) -> None:
    """Raise SpecError for a newline or another control character (but tab) in a string.

    In a batch script, a newline would end the line that the value stands in, and begin one of its own; a null character
    can stand in no path, command line or environment.
    """
    if isinstance(value, dict):
        for key, item in value.items():
            _refuse_control(path, key, _NOWHERE)
            _refuse_control(f"{path}.{key}" if path else key, item, several_lines)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            _refuse_control(f"{path}[{index}]", item, several_lines)
    elif isinstance(value, str) and _CONTROL.search(value.replace("\n", "") if several_lines.search(path) else value):
        raise SpecError(path or "file", value, "expected one line of text without control characters")


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_none(item) for key, item in value.items() if item is not None}
    if isinstance(value, list | tuple):
        return [_without_none(item) for item in value]
    return value


def _explain(message: str, raw: Mapping[str, Any], root: type[Section]) -> SpecError:
    """Turn msgspec's message into a SpecError that also carries the value and the valid keys."""
    text, _, path = message.partition(" - at `$")
    path = path.rstrip("`").lstrip(".")
    unknown = re.match(r"Object contains unknown field `(.*)`", text, re.DOTALL)
    missing = re.match(r"Object missing required field `(.*)`", text)
    found = unknown or missing
    kind, value = _walk(path, raw, root)
    if found:
        key = f"{path}.{found[1]}" if path else found[1]
        if missing:
            return SpecError(key, None, f"missing; {_needed(found[1], kind)}")
        return SpecError(key, value.get(found[1]), _unknown(found[1], kind.__struct_fields__))
    if path.endswith("[...]"):  # some value of a table whose keys are free
        path, value = _wrong_item(path.removesuffix("[...]"), value, kind)
    return SpecError(path, value, _brackets(path, value, kind) or _expected(text, kind, value))


def _needed(name: str, kind: Any) -> str:
    """What a key without a default has to be, where it is a section."""
    hint = _without_optional(get_type_hints(kind).get(name))
    item = get_args(hint)[0] if get_origin(hint) is tuple else None
    return f"expected at least one section [[{name}]]" if _is_section(item) else "it has no default"


def _is_section(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Section)


def _unknown(name: str, valid: tuple[str, ...]) -> str:
    similar = difflib.get_close_matches(name, valid, n=1)
    hint = f". Did you mean {similar[0]}?" if similar else ""
    return f"unknown key; valid keys: {', '.join(valid)}{hint}"


def _wrong_item(path: str, table: Mapping[str, Any], kind: Any) -> tuple[str, Any]:
    """The key and the value of the first item that does not have the type of the table's values."""
    for key, value in table.items():
        try:
            msgspec.convert(value, get_args(kind)[1])
        except msgspec.ValidationError:
            return f"{path}.{key}", value
    return path, table


def _brackets(path: str, value: Any, kind: Any) -> str:
    """What is valid where tables are written with the brackets of one for those of several, or the other way round."""
    name = re.sub(r"\[\d+\]", "", path)
    item = get_args(kind)[0] if get_origin(kind) is tuple else None
    if _is_section(item):
        slip = f", with two brackets instead of [{name}]" if isinstance(value, dict) else ""
        return f"expected [[{name}]]{slip}: a section of its own for each one"
    if (get_origin(kind) is dict or _is_section(kind)) and isinstance(value, list):
        return f"expected [{name}], with single brackets instead of [[{name}]]: there is one such section only"
    if _is_section(kind) and not isinstance(value, dict):
        return f"expected a section [{name}]; its keys: {', '.join(kind.__struct_fields__)}"
    return ""


def _expected(text: str, kind: Any, value: Any) -> str:
    """What is valid, from msgspec's words for it, in those of TOML."""
    if get_origin(kind) is Literal:
        return f"expected one of: {', '.join(get_args(kind))}"
    words_of = next((get_args(one) for one in get_args(kind) if get_origin(one) is Literal), ())
    if words_of and text.startswith("Invalid enum value"):  # of a key that may also be a number
        return f"expected a number or {', '.join(words_of)}"
    text = text[0].lower() + text.partition(", got `")[0][1:]
    types = re.search(r"`([a-z |]+)`", text)
    names = [name for name in types[1].split(" | ") if name != "null"] if types else []  # TOML has no null
    words = ", or ".join(_TYPE_WORDS.get(name, name) for name in names)
    quoted = ", without quotes" if isinstance(value, str) and {"int", "float", "bool"}.issuperset(names) else ""
    return (text.replace(types[0], words) if types else text) + quoted


def _walk(path: str, raw: Any, kind: Any) -> tuple[Any, Any]:
    """The type and the raw value at the end of `path`."""
    for part in re.findall(r"\w+|\[\d+\]", path):
        if part.startswith("["):
            raw, kind = raw[int(part[1:-1])], get_args(kind)[0] if get_args(kind) else None
            continue
        raw = raw.get(part) if isinstance(raw, dict) else None
        hints = get_type_hints(kind) if _is_section(kind) else {}
        kind = _without_optional(hints.get(part))
    return kind, raw


def _without_optional(hint: Any) -> Any:
    """The other one of `X | None`; a union of several others stays one."""
    if get_origin(hint) not in (UnionType, Union):  # the latter of `Literal[...] | None`
        return hint
    kinds = [kind for kind in get_args(hint) if kind is not type(None)]
    return kinds[0] if len(kinds) == 1 else hint
