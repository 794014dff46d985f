"""Names of processes that are never used twice and do not depend on the clock: PID@TICKS-BOOT.

TICKS is when the process started, in ticks of the kernel since it booted (field 22 of /proc/PID/stat), and BOOT the
beginning of the kernel's boot id. Neither moves when somebody sets the clock, which a start time in seconds does.
"""

import os
import re
from functools import cache
from pathlib import Path

_ID = re.compile(r"(?P<pid>\d{1,10})@(?P<ticks>\d+)-(?P<boot>[0-9a-f]{8})", re.ASCII)
_OLDER = re.compile(r"(?P<pid>\d{1,10})@(?P<started>\d+\.\d+)", re.ASCII)  # Unix seconds, as of version 0.1.0
_SAME_START_S = 0.02
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_NO_BOOT_ID = "0" * 8  # where the kernel does not tell
_ENDED = ("Z", "X")


def process_id(pid: int) -> str:
    """The name of a process that is there. Raises ProcessLookupError."""
    found = _stat(pid)
    if found is None:
        raise ProcessLookupError(f"no process {pid}")
    return f"{pid}@{found[1]}-{boot()}"


def pid_of(name: str) -> int:
    """The pid in a process's name. Raises ValueError for what is no such name."""
    return int(_parse(name)["pid"])


def is_running(name: str) -> bool:
    """Whether that very process lives, on this machine. Raises ValueError for what is no name of a process."""
    found = _parse(name)
    there = _stat(int(found["pid"]))
    if there is None or there[0] in _ENDED:
        return False
    started = there[1]
    if "boot" in found:
        return found["boot"] == boot() and int(found["ticks"]) == started
    return abs(_boot_time_s() + started / os.sysconf("SC_CLK_TCK") - float(found["started"])) < _SAME_START_S


def is_of_this_boot(name: str) -> bool:
    """Whether the process started on this machine since it has booted, as far as its name tells.

    Raises ValueError for what is no name of a process.
    """
    return _parse(name).get("boot", boot()) == boot()


@cache
def boot() -> str:
    """The beginning of the kernel's boot id."""
    try:
        return _BOOT_ID.read_text(encoding="ascii")[:8]
    except OSError:
        return _NO_BOOT_ID


@cache
def pid_namespace() -> int:
    """The namespace in which the PIDs of this process count: a container has one of its own. 0 if not told."""
    try:
        return os.stat("/proc/self/ns/pid").st_ino
    except OSError:
        return 0


def _parse(name: str) -> dict[str, str]:
    found = _ID.fullmatch(name) or _OLDER.fullmatch(name)
    if found is None:
        raise ValueError(f"{name!r}: expected PID@TICKS-BOOT")
    return found.groupdict()


def _stat(pid: int) -> tuple[str, int] | None:
    """The state of a process, and its start in ticks since boot; None if there is none."""
    try:
        text = Path(f"/proc/{pid}/stat").read_bytes().decode(errors="replace")
    except OSError:
        return None
    # The program's name stands in brackets, and may have any character.
    state, *fields = text.rpartition(")")[2].split()
    return state, int(fields[18])


def _boot_time_s() -> float:
    lines = Path("/proc/stat").read_text(encoding="ascii").splitlines()
    return float(next(line for line in lines if line.startswith("btime ")).split()[1])
