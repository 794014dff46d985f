"""What went wrong, out of a log."""

import re
from pathlib import Path

_TAIL_BYTES = 256 * 1024
_RAISED = re.compile(r"^(?:\S+ )?(?:[A-Za-z_][\w.]*(?:Error|Exception|Interrupt|Exit)\b)(?::.*)?$")
_COMPLAINT = re.compile(
    r"\b(?:error|fatal|killed|out of memory|oom-kill|segmentation fault|cannot|failed)\b", re.IGNORECASE
)


def tail(path: Path) -> str:
    """The end of a log file; empty if there is none."""
    try:
        with path.open("rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - _TAIL_BYTES))
            return file.read().decode(errors="replace")
    except OSError:
        return ""


def root_cause(text: str) -> str:
    """The line that says why: the first exception raised, else the first complaint, else the last line; or ''.

    The first, because whatever follows it in the log of a distributed program is usually its echo.
    """
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    for pattern in (_RAISED, _COMPLAINT):
        for line in lines:
            if pattern.search(line):
                return line
    return lines[-1] if lines else ""
