"""What a template may call, and what operations of it cost beyond the step that each one is.

A step is about a microsecond. Where Python does one thing to a whole text or list, that is fast for each character, but
there may be many, and some operations look at one character or item many times. Their costs are bounds from above.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from jinja2.exceptions import SecurityError

from .growth import LONGEST_LIST

_MOST_PLACES, _WIDEST_INDENT, _LONGEST_NAME = 400, 64, 10_000
_CODECS = frozenset({"utf-8", "utf8", "ascii", "latin-1"})  # others take time that grows with the square
_SLOW_STEP = 16  # characters that cost as much as a step where Python looks at each word or makes an object of it
_SLOW = frozenset({
    "wordwrap", "title", "wordcount", "urlize", "striptags", "tojson", "pprint", "xmlattr", "urlencode",
    "escape", "e", "forceescape", "split", "rsplit", "splitlines",
})  # fmt: skip
_TEXT = frozenset({
    "capitalize", "casefold", "center", "count", "encode", "endswith", "expandtabs", "find", "format", "format_map",
    "index", "isalnum", "isalpha", "isascii", "isdecimal", "isdigit", "isidentifier", "islower", "isnumeric",
    "isprintable", "isspace", "istitle", "isupper", "join", "ljust", "lower", "lstrip", "partition", "removeprefix",
    "removesuffix", "replace", "rfind", "rindex", "rjust", "rpartition", "rsplit", "rstrip", "split", "splitlines",
    "startswith", "strip", "swapcase", "title", "upper", "zfill",
})  # fmt: skip
_COLLECTIONS: tuple[type[Collection[Any]], ...] = (set, frozenset, type({}.keys()), type({}.values()), type({}.items()))
_METHODS: tuple[tuple[type | tuple[type, ...], frozenset[str]], ...] = (
    (str, _TEXT),
    (bytes, frozenset({"decode", "endswith", "find", "startswith"})),
    ((int, float), frozenset({"as_integer_ratio", "bit_length", "is_integer"})),
    ((list, tuple), frozenset({"copy", "count", "index"})),
    (dict, frozenset({"copy", "get", "items", "keys", "values"})),
    (type, frozenset()),
)
PLAIN = frozenset({str, int, float, bool, type(None)})  # that have nothing in them
# Filters and tests that look at a value, or at its items, but not into these.
SHALLOW = frozenset({
    "first", "last", "length", "count", "default", "d", "list", "map", "select", "reject", "selectattr", "rejectattr",
    "batch", "slice", "reverse", "items", "random", "attr", "abs", "int", "float", "round", "safe",
    "defined", "undefined", "none", "boolean", "false", "true", "integer", "number", "mapping", "iterable", "sequence",
    "sameas", "escaped", "callable", "filter", "test", "odd", "even", "divisibleby",
})  # fmt: skip
SHALLOW_METHODS = frozenset({"startswith", "endswith", "get", "items", "keys", "values", "copy", "is_integer"})
_OF_CHARACTERS = frozenset({
    "list", "sort", "unique", "batch", "slice", "map", "select", "reject", "selectattr", "rejectattr", "join", "min",
    "max", "sum", "groupby", "random",
})  # fmt: skip
_NAMES = frozenset({"map", "selectattr", "rejectattr", "attr", "sort", "groupby", "unique", "sum", "min", "max"})


def check_method(method: Callable[..., Any]) -> None:
    """Raise SecurityError for a method of a text, number or list that templates do not need."""
    owner, name = getattr(method, "__self__", None), getattr(method, "__name__", "")
    for kinds, allowed in _METHODS:
        if isinstance(owner, kinds):
            if name not in allowed:
                raise SecurityError(f"{type(owner).__name__}.{name} is not for templates")
            return


def check_arguments(name: str, value: Any, args: Sequence[Any]) -> None:
    """Raise SecurityError for arguments of a filter or method of this name with which it would never end."""
    numbers = [abs(each) for each in args if isinstance(each, int)]
    if name == "round" and max(numbers, default=0) > _MOST_PLACES:
        raise SecurityError(f"round: a number has more than {_MOST_PLACES} digits")
    if name == "tojson" and max(numbers, default=0) > _WIDEST_INDENT:
        raise SecurityError(f"tojson: an indent has more than {_WIDEST_INDENT} spaces")
    if name in _NAMES and any(isinstance(each, str) and len(each) > _LONGEST_NAME for each in args):
        raise SecurityError(f"{name}: a name has more than {_LONGEST_NAME} characters")
    if name in _OF_CHARACTERS and isinstance(value, (str, bytes)) and len(value) > LONGEST_LIST:
        raise SecurityError(f"a list has more than {LONGEST_LIST} items")
    if name in ("encode", "decode") and any(isinstance(each, str) and each.lower() not in _CODECS for each in args[:1]):
        raise SecurityError(f"{name}: expected one of {', '.join(sorted(_CODECS))}")


def steps_of(name: str, value: Any, args: Sequence[Any], characters: int, items: int) -> int:
    """Steps of a filter or method, besides those for the `characters` and `items` that it looks at once."""
    text = value if isinstance(value, str) else ""
    first = args[0] if args and isinstance(args[0], (str, list, tuple)) else ""
    steps = characters // _SLOW_STEP + items if name in _SLOW else 0
    if name == "striptags":
        steps += text.count("<") * len(text) // 8192
    if name in ("strip", "lstrip", "rstrip", "trim"):
        steps += len(text) * len(first) // 2**14
    if name == "sum" and any(isinstance(each, (list, tuple)) for each in args):  # each addition copies what is there
        steps += len(parts(value) or ()) * items // 1024
    return steps


def steps_of_numbers(operator: str, left: int, right: int) -> int:
    """Steps of an operator on whole numbers, whose time grows with the square of their digits."""
    if operator == "**":
        bits = left.bit_length() * max(1, right)
        return bits * bits >> 21
    return left.bit_length() * right.bit_length() >> 21


def parts(value: Any) -> Sequence[Any] | None:
    """What is in a list or the like; None for what is none."""
    if isinstance(value, (list, tuple)):
        return value
    if isinstance(value, Mapping):
        return [*value.keys(), *value.values()]
    return list(value) if isinstance(value, _COLLECTIONS) else None
