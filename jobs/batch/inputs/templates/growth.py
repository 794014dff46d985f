"""How long a text gets at most by one operation of a template, for those that make more than they are given."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

LONGEST_TEXT = 64 * 1024 * 1024  # characters
LONGEST_LIST = 1 << 20  # items
_PADS = ("center", "ljust", "rjust", "zfill")
_GROUPS = ("batch", "slice")
_FIELDS = {"%": re.compile(r"%[^a-zA-Z%]*"), "format": re.compile(r"\{[^}]*")}


def size_after(name: str, value: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> int:
    """Characters that the result has at most; 0 for operations that make little more than they are given.

    Args:
        name: of an operator, a method of text or a filter.
        value: on the left of it.
    """
    given = [*args, *kwargs.values()]
    number = max((abs(each) for each in given if isinstance(each, int)), default=0)
    longest = max((len(each) for each in given if isinstance(each, (str, list, tuple))), default=0)
    if name == "*":
        return _repeated(value, args[0])
    if name in _PADS:
        return number
    if name in _GROUPS:
        return number * (LONGEST_TEXT // LONGEST_LIST)
    if name == "join":
        return _joined(value, given)
    if not isinstance(value, str):
        return 0
    if name == "expandtabs":
        return value.count("\t") * (number or 8)
    if name == "indent":
        return (value.count("\n") + 1) * max(number, longest)
    if name == "replace":
        return _replaced(value, args, longest)
    if name == "wordwrap":
        return (len(value) + 1) * max(1, longest)
    if name in ("%", "format", "format_map"):
        return max(_formatted(kind, value, given) for kind in _FIELDS if kind[0] == name[0] or name == "format")
    return 0


def _repeated(left: Any, right: Any) -> int:
    many, times = (right, left) if isinstance(left, int) else (left, right)
    if not isinstance(times, int) or not isinstance(many, (str, bytes, list, tuple)):
        return 0
    return len(many) * times * (1 if isinstance(many, (str, bytes)) else LONGEST_TEXT // LONGEST_LIST)


def _joined(value: Any, given: list[Any]) -> int:
    """A filter has the texts on its left, a method the separator."""
    parts = next((each for each in (value, *given) if isinstance(each, (list, tuple, range))), ())
    between = max((len(each) for each in (value, *given) if isinstance(each, str)), default=0)
    return sum(_length(each) + between for each in parts)


def _length(value: Any) -> int:
    """Of a value as text, about; of a row the longest of its columns, which `join` may be asked for."""
    if isinstance(value, str):
        return len(value)
    if isinstance(value, Mapping):
        return max((len(each) for each in value.values() if isinstance(each, str)), default=0)
    return 1


def _replaced(value: str, args: Sequence[Any], longest: int) -> int:
    places = value.count(args[0]) if args and isinstance(args[0], str) else len(value) + 1
    return len(value) + places * longest


def _formatted(kind: str, value: str, given: list[Any]) -> int:
    """Widths that the text names, or takes from what is given; and each value for each field."""
    fields = _FIELDS[kind].findall(value)
    if any(len(digits) > 9 for field in fields for digits in re.findall(r"\d+", field)):
        return LONGEST_TEXT + 1
    widths = sum(int(digits) for field in fields for digits in re.findall(r"\d+", field))
    values = [each for one in given for each in (one.values() if isinstance(one, Mapping) else _items(one))]
    names_widths = any("*" in field or "{" in field[1:] for field in fields)
    taken = max((abs(each) for each in values if isinstance(each, int)), default=0) if names_widths else 0
    return widths + len(fields) * max([taken, *(len(each) for each in values if isinstance(each, str))])


def _items(value: Any) -> Sequence[Any]:
    return value if isinstance(value, (list, tuple)) else (value,)
