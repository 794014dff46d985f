"""This user's quota, where the filesystem's own commands tell it: `quota` for NFS and local disks, `lfs` for Lustre.

Others have commands of their own, many of them for administrators only; of those nothing is known.
"""

import functools
import getpass
from pathlib import Path

from ...core.errors import CommandError
from ...core.processes import process
from .mounts import Mount

_TIMEOUT_S = 10.0
_KIB = 1024

Quota = tuple[int | None, int | None]  # the limit and what is used, in bytes
UNKNOWN: Quota = (None, None)


def quota_of(path: Path, mount: Mount) -> Quota:
    """The limit of what this user may have there, and how much it is already; None where nobody tells."""
    if mount.kind == "lustre":
        return parse_lfs(_said("lfs", "quota", "-q", "-u", getpass.getuser(), str(path)))
    return parse_quota(_said("quota", "--no-wrap", "--raw-grace"), mount.source)


def parse_quota(text: str, source: str) -> Quota:
    """The row of a filesystem: its source, KiB used (with * if too many), soft limit, hard limit."""
    rows = (line.split() for line in text.splitlines())
    return next((_bytes(row[1:]) for row in rows if row and row[0] == source), UNKNOWN)


def parse_lfs(text: str) -> Quota:
    """The one row: the mount point, KiB used (with * if too many), soft limit, hard limit. A long name has a line."""
    words = text.split()
    return _bytes(words[1:]) if len(words) > 3 else UNKNOWN


def _bytes(row: list[str]) -> Quota:
    numbers = [word.rstrip("*") for word in row[:3]]
    if len(numbers) < 3 or not all(number.isdecimal() for number in numbers):
        return UNKNOWN
    used, soft, hard = (int(number) * _KIB for number in numbers)
    return (hard or soft or None), used


@functools.cache  # many folders are on the same filesystem
def _said(*argv: str) -> str:
    try:
        return process.run(argv, timeout_s=_TIMEOUT_S)
    except CommandError:
        return ""
