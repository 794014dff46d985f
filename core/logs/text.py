"""What went wrong, out of a log."""

import os
import re
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

_TAIL_BYTES = 256 * 1024
_RAISED = re.compile(r"^(?:\S+ )?(?:[A-Za-z_][\w.]*(?:Error|Exception|Interrupt|Exit)\b)(?::.*)?$")
_COMPLAINT = re.compile(
    r"\b(?:error|fatal|killed|out of memory|oom-kill|segmentation fault|cannot|failed)\b", re.IGNORECASE
)
_HARMLESS = ("DEBUG", "INFO", "WARNING")

# Slurm's complaint where a node does not see the folder of `sbatch`: the job runs, in /tmp.
# And what Apptainer tells besides its errors, such as "INFO:    Cleanup error: ...".
_NO_FAILURE = re.compile(
    r"slurmstepd\S*: error: (couldn't chdir to |Unable to return to working directory)|"
    r"^(INFO|WARNING|VERBOSE|DEBUG) *: +"
)
_COLOUR = re.compile(r"\x1b\[[\d;]*m")  # that a program has written although nobody looks
# Such as "srun: error: n2: task 1: Killed" and "srun: error: n[1-2]: tasks 0-1: Exited with exit code 1".
_LOST_TASKS = re.compile(r"^srun: error: (\S+): tasks? (\d\S*): (.+)$", re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class LogFormat:
    """How a program writes its log, where that differs from plain lines. None: it has nothing of the kind.

    Args:
        prefix: what its logger writes before a message, matched at the beginning of a line; a group `level`, if there
            is one, matches the message's level.
        crash: searched in a message; matches where the program reports that one of its own processes has crashed.
        ends_itself: searched in the whole log; matches where the program says that it kills itself, which looks from
            outside as if somebody else had killed it.
        remark: searched in a message; matches where a program that works says what its user should know.
    """

    prefix: re.Pattern[str] | None = None
    crash: re.Pattern[str] | None = None
    ends_itself: re.Pattern[str] | None = None
    remark: re.Pattern[str] | None = None


PLAIN = LogFormat()


def tail(path: Path) -> str:
    """The end of a log file; empty if there is none, or if it is no file."""
    try:
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - _TAIL_BYTES))
            return file.read().decode(errors="replace")
    except OSError:
        return ""


def oldest_first(paths: Iterable[Path]) -> list[Path]:
    """Those of the paths that are files, by the time of their last change; one that vanishes meanwhile is left out."""
    times: dict[Path, float] = {}
    for path in paths:
        try:
            status = path.stat()
        except OSError:
            continue
        if stat.S_ISREG(status.st_mode):
            times[path] = status.st_mtime
    return sorted(times, key=lambda path: times[path])


def root_cause(text: str, log_format: LogFormat = PLAIN) -> str:
    """The line that says why: the first exception raised, else crash, else complaint, else the last line; or ''."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return complaint(text, log_format) or (lines[-1] if lines else "")


def complaint(text: str, log_format: LogFormat = PLAIN) -> str:
    """The line that says that something failed: the first exception raised, else crash, else complaint; or ''.

    The first, because whatever follows it in the log of a distributed program is usually its echo.
    """
    messages = list(messages_of(text, log_format))
    for pattern in (_RAISED, log_format.crash, _COMPLAINT):
        for message in messages:
            if pattern is not None and pattern.search(message):
                return message
    return ""


def messages_of(text: str, log_format: LogFormat = PLAIN) -> Iterator[str]:
    """The lines of a log without what its logger writes before them; none of a level at which nothing has failed."""
    for line in _COLOUR.sub("", text).splitlines():
        if _NO_FAILURE.search(line):
            continue
        if message := _message(line.strip(), log_format.prefix):
            yield message


def ends_itself(text: str, log_format: LogFormat) -> bool:
    """Whether a program says in its log that it ends itself, which from outside looks as if somebody had killed it."""
    return log_format.ends_itself is not None and log_format.ends_itself.search(text) is not None


def remark(text: str, log_format: LogFormat) -> str:
    """The first message of a log by which a program that works tells its user something; or ''."""
    if log_format.remark is None:
        return ""
    return next((message for message in messages_of(text, log_format) if log_format.remark.search(message)), "")


def _message(line: str, prefix: re.Pattern[str] | None) -> str:
    """A line without its logger's prefix; empty for one of a level at which nothing has failed."""
    found = prefix.match(line) if prefix is not None else None
    if found is None:
        return line
    return "" if found.groupdict().get("level") in _HARMLESS else line[found.end() :].strip()


@dataclass(frozen=True)
class LostTasks:
    """What srun says of tasks that have died together."""

    hosts: str  # as Slurm writes them: n[1-2]
    ranks: str  # such as 1, or 0-1
    how: str

    @property
    def first_rank(self) -> int:
        """The lowest rank among the tasks (Slurm's SLURM_PROCID)."""
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
