"""How Slurm's commands write values: times, durations, numbers, lists, and lines of KEY=VALUE."""

import re
import time

from ..core.spec.values import parse_time

NOTHING = frozenset({"", "None", "N/A", "NONE", "(null)", "None assigned", "n/a", "Unknown", "NOT_SET", "INVALID"})
_UNLIMITED = frozenset({"UNLIMITED", "INFINITE", "Partition_Limit"})
_PAIR = re.compile(r"(?:^|\s)([A-Za-z][\w/:\[\]-]*)=(\S*)")
_ISO = "%Y-%m-%dT%H:%M:%S"


def duration_s(text: str) -> int | None:
    """Seconds of a duration such as "1-00:00:00" or "10:00"; None where there is none, or no limit."""
    if text in NOTHING or text in _UNLIMITED:
        return None
    try:
        return parse_time(text)
    except ValueError:
        return None


def unix_time(text: str) -> float | None:
    """Unix seconds of a time as SLURM_TIME_FORMAT=%s or Slurm's default (local time) writes it; None for none."""
    if text.isdecimal():
        return float(text)
    try:
        return time.mktime(time.strptime(text, _ISO))
    except (ValueError, OverflowError):
        return None


def number(text: str) -> int | None:
    """An integer; None where there is none, or no limit."""
    return int(text) if text.isdecimal() else None


def items(text: str) -> tuple[str, ...]:
    """The parts of a list with commas; empty where there is none."""
    return () if text in NOTHING else tuple(part for part in text.split(",") if part)


def pairs(line: str) -> dict[str, str]:
    """KEY=VALUE pairs of a line that `scontrol show ... --oneliner` prints.

    The first of a key counts: free text of an administrator, such as a comment, comes last.
    """
    found: dict[str, str] = {}
    for key, value in _PAIR.findall(line):
        found.setdefault(key, value)
    return found
