"""What went wrong, out of a log."""

import re
from pathlib import Path

_TAIL_BYTES = 256 * 1024
_RAISED = re.compile(r"^(?:\S+ )?(?:[A-Za-z_][\w.]*(?:Error|Exception|Interrupt|Exit)\b)(?::.*)?$")
_COMPLAINT = re.compile(
    r"\b(?:error|fatal|killed|out of memory|oom-kill|segmentation fault|cannot|failed)\b", re.IGNORECASE
)

_LOST_TASK = re.compile(r"^srun: error: (\S+): (tasks? \S+): (.+)$", re.MULTILINE)


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


def lost_task(text: str) -> str:
    """What srun says in a job's log of the first task that has died: "task 1 on n2: Killed"; or ''."""
    match = _LOST_TASK.search(text)
    return f"{match[2]} on {match[1]}: {match[3]}" if match else ""
