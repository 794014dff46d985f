"""TOML files as typed, frozen sections; whatever is wrong in one is a SpecError with key, value and what is valid."""

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from types import UnionType
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import msgspec
import tomli_w

from .errors import SpecError

_CONTROL = re.compile("[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029]")
_NOWHERE = re.compile(r"(?!)")


class Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of all parts of a spec."""


SectionT = TypeVar("SectionT", bound=Section)


def read_toml(path: Path) -> str:
    """The file's text. Raises SpecError."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(str(path), None, f"cannot read the spec: {error}") from error


def parse_toml(text: str, root: type[SectionT], several_lines: re.Pattern[str] = _NOWHERE) -> SectionT:
    """TOML text as a `root`. Raises SpecError.

    Args:
        text: of the file.
        root: what the file as a whole is.
        several_lines: searched in the dotted path of a key; matches where a string may have newlines.
    """
    try:
        raw = tomllib.loads(text)
    except ValueError as error:  # TOMLDecodeError, or a plain one for a number of thousands of digits
        raise SpecError("file", None, f"not TOML: {error}") from error
    except RecursionError as error:
        raise SpecError("file", None, "tables or lists are nested too deeply") from error
    _refuse_control("", raw, several_lines)
    try:
        return msgspec.convert(raw, root)
    except msgspec.ValidationError as error:
        raise _explain(str(error), raw, root) from error


def dump_toml(section: Section) -> str:
    """The section as TOML, without what is None; `parse_toml` gives it back."""
    return tomli_w.dumps(_without_none(msgspec.to_builtins(section)))


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
            return SpecError(key, None, "missing; it has no default")
        return SpecError(key, value.get(found[1]), f"unknown key; valid keys: {', '.join(kind.__struct_fields__)}")
    valid = get_args(kind) if get_origin(kind) is Literal else ()
    return SpecError(path, value, f"expected one of: {', '.join(valid)}" if valid else text[0].lower() + text[1:])


def _walk(path: str, raw: Any, kind: Any) -> tuple[Any, Any]:
    """The type and the raw value at the end of `path`."""
    for part in re.findall(r"\w+|\[\d+\]", path):
        if part.startswith("["):
            raw, kind = raw[int(part[1:-1])], get_args(kind)[0] if get_args(kind) else None
            continue
        raw = raw.get(part) if isinstance(raw, dict) else None
        hints = get_type_hints(kind) if isinstance(kind, type) and issubclass(kind, Section) else {}
        kind = _without_optional(hints.get(part))
    return kind, raw


def _without_optional(hint: Any) -> Any:
    """The other one of `X | None`."""
    if not isinstance(hint, UnionType):
        return hint
    return next(kind for kind in get_args(hint) if kind is not type(None))
