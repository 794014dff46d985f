"""Values of specs: bounded numbers, names and walltimes."""

import re
from typing import Annotated

from msgspec import Meta

from ..errors import SpecError

# Bounds far above what there is: a larger number is a mistake, and would cost minutes and gigabytes until it fails.
Nodes = Annotated[int, Meta(ge=1, le=10_000)]
Cpus = Annotated[int, Meta(ge=1, le=65_536)]
Gpus = Annotated[int, Meta(ge=0, le=64)]
Ranks = Annotated[int, Meta(ge=1, le=65_536)]
Tokens = Annotated[int, Meta(ge=1, le=1_000_000_000)]
Requests = Annotated[int, Meta(ge=1, le=1_000_000)]
Seconds = Annotated[int, Meta(ge=0, le=365 * 86_400)]
Option = str | int | bool
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_NAME_RULE = "expected letters, digits, '.', '_' or '-', beginning with a letter or digit, at most 63 in all"
_TIME = re.compile(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?", re.ASCII)
_LONGEST_TIME_S = 366 * 86_400


def parse_time(text: str) -> int:
    """Seconds of a Slurm time: MM, MM:SS, HH:MM:SS, D-HH, D-HH:MM or D-HH:MM:SS. Raises ValueError."""
    match = _TIME.fullmatch(text)
    if match is None:
        raise ValueError(f"not a Slurm time: {text!r}")
    days, *rest = (int(part) if part else None for part in match.groups())
    if days is not None or rest[2] is not None:
        hours, minutes, seconds = (part or 0 for part in rest)
    else:
        hours, minutes, seconds = 0, rest[0] or 0, rest[1] or 0
    return (((days or 0) * 24 + hours) * 60 + minutes) * 60 + seconds


def is_name(text: str) -> bool:
    """Whether a deployment, or a pool, may have this name."""
    return _NAME.fullmatch(text) is not None


def check_name(key: str, value: str) -> None:
    """Raise SpecError for a name that deployments, pools and tenants cannot have."""
    if not is_name(value):
        raise SpecError(key, value, _NAME_RULE)


def check_time(key: str, value: str) -> None:
    """Raise SpecError for what is no walltime, or too long."""
    try:
        seconds = parse_time(value)
    except ValueError:
        seconds = 0
    if not 0 < seconds <= _LONGEST_TIME_S:
        expected = "expected a Slurm time such as '30', '04:00:00' or '2-00:00:00', of at most a year"
        raise SpecError(key, value, expected)
