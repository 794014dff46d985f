"""Slurm's short form of node names: "n[1-3,7],gpu[08-10]-ib" (scontrol(1), "show hostnames")."""

import itertools
import re
from collections.abc import Iterator

from .values import NOTHING

_PART = re.compile(r"(?:[^,\[\]]|\[[^\]]*\])+")
_GROUP = re.compile(r"\[([^\]]*)\]")


def expand(text: str) -> tuple[str, ...]:
    """All names in their order; empty for Slurm's words for none."""
    if text in NOTHING:
        return ()
    if "[" not in text:
        return tuple(text.split(",")) if "," in text else (text,)
    return tuple(name for part in _PART.findall(text) for name in _names(part))


def _names(part: str) -> Iterator[str]:
    """The names of one part, such as "n[1-3]": fixed text and groups of numbers in turn."""
    pieces = _GROUP.split(part)
    choices = [tuple(_numbers(piece)) if index % 2 else (piece,) for index, piece in enumerate(pieces)]
    return map("".join, itertools.product(*choices))


def _numbers(group: str) -> Iterator[str]:
    for span in group.split(","):
        first, dash, last = span.partition("-")
        if not (dash and first.isdecimal() and last.isdecimal()):
            yield span
        else:
            yield from (str(value).zfill(len(first)) for value in range(int(first), int(last) + 1))
