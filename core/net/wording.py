"""What msgspec says of a wrong value, in plain English."""

import re

_TYPES = {
    "array": "a list",
    "bool": "true or false",
    "float": "a number",
    "int": "an integer",
    "object": "an object",
    "str": "a string",
}
_KINDS = re.compile(r"`([a-z]+(?: \| [a-z]+)*)`")
_BOUND = re.compile(r"(?: of length)? (>=|<=|>|<) (-?\d+(?:\.\d+)?)$")
_BOUNDS = {">=": "at least", "<=": "at most", ">": "more than", "<": "less than"}


def plain(message: str) -> str:
    """A message of msgspec in words: "expected an integer of at least 1" for "Expected `int` >= 1"."""
    text = _KINDS.sub(lambda found: _named(found[1].split(" | ")), message)
    text = _BOUND.sub(_bounded, text)
    return text[:1].lower() + text[1:]


def _named(kinds: list[str]) -> str:
    """The types by name. A null is not named beside others: a field that may be null may also be left out."""
    named = [_TYPES.get(kind, kind) for kind in kinds if kind != "null" or len(kinds) == 1]
    if "a number" in named and "an integer" in named:
        named.remove("an integer")
    return " or ".join(named)


def _bounded(found: re.Match[str]) -> str:
    number = found[2].removesuffix(".0")
    what = "with a length of" if found[0].startswith(" of length") else "of"
    return f" {what} {_BOUNDS[found[1]]} {number}"
