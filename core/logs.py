"""What went wrong, out of a log."""

import re
from dataclasses import dataclass
from pathlib import Path

_TAIL_BYTES = 256 * 1024
_RAISED = re.compile(r"^(?:\S+ )?(?:[A-Za-z_][\w.]*(?:Error|Exception|Interrupt|Exit)\b)(?::.*)?$")
_COMPLAINT = re.compile(
    r"\b(?:error|fatal|killed|out of memory|oom-kill|segmentation fault|cannot|failed)\b", re.IGNORECASE
)
# As SGLang says of a process of its own: "Subprocess scheduler_0 (pid=1809) crashed with exit code -9."
_CRASHED = re.compile(r"\bcrashed with exit code\b")
# As SGLang logs: "[2026-11-28 19:30:37 TP0] Load weight begin."
_TIME = re.compile(r"^\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d[^\]]*\] ")
# As vLLM logs: "(EngineCore pid=645) ERROR 11-25 18:36:26 [core.py:1512] KeyError: 'x'".
_LEVEL = re.compile(r"^(?:\([^)]*pid=\d+\) )?(DEBUG|INFO|WARNING|ERROR|CRITICAL) [\d-]+ [\d:]+ \[[^\]]+\] ")
_HARMLESS = ("DEBUG", "INFO", "WARNING")

# SGLang kills all of itself when one of its processes has failed: "... It usually means the child failed."
_ENDS_ITSELF = re.compile(r"It usually means (?:the|one) child failed")

# Such as "srun: error: n2: task 1: Killed" and "srun: error: n[1-2]: tasks 0-1: Exited with exit code 1".
_LOST_TASKS = re.compile(r"^srun: error: (\S+): tasks? (\d\S*): (.+)$", re.MULTILINE)


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
    """The line that says why: the first exception raised, else crash, else complaint, else the last line; or ''.

    The first, because whatever follows it in the log of a distributed program is usually its echo.
    """
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    complaints = [_complaint(line) for line in lines]
    for pattern in (_RAISED, _CRASHED, _COMPLAINT):
        for line in complaints:
            if pattern.search(line):
                return line
    return lines[-1] if lines else ""


def ends_itself(text: str) -> bool:
    """Whether a program says in its log that it ends itself, which from outside looks as if somebody had killed it."""
    return _ENDS_ITSELF.search(text) is not None


def _complaint(line: str) -> str:
    """A line without its logger's prefix; empty for one of a level at which nothing has failed."""
    found = _LEVEL.match(line)
    if found is None:
        return _TIME.sub("", line)
    return "" if found[1] in _HARMLESS else line[found.end() :].strip()


@dataclass(frozen=True)
class LostTasks:
    """What srun says of tasks that have died together."""

    hosts: str  # as Slurm writes them: n[1-2]
    ranks: str  # such as 1, or 0-1
    how: str

    @property
    def first_rank(self) -> int:
        return int(re.split(r"\D", self.ranks)[0])

    def __str__(self) -> str:
        is_one = self.ranks.isdigit()
        return f"{'task' if is_one else 'tasks'} {self.ranks} on {self.hosts}: {self.how}"


def lost_tasks(text: str) -> list[LostTasks]:
    """What srun says in a log of tasks that have died, in its order."""
    return [LostTasks(*found) for found in _LOST_TASKS.findall(text)]


def lost_task(text: str) -> str:
    """The first of them: "task 1 on n2: Killed"; or ''."""
    return next(map(str, lost_tasks(text)), "")
