"""Why a job has failed and what to change, from its logs and from what the scheduler says. Pure.

The known failures are in tables: those of Slurm in slurm/failures.py, those of engines in nodes/engines/failures/.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from ..core.job import JobStatus
from ..core.logs.failures import Explanation, KnownFailure, find, find_echo
from ..core.logs.text import PLAIN, LogFormat, complaint, messages_of, root_cause
from ..nodes.engines.failures.containers import CONTAINERS
from ..nodes.engines.failures.machine import HARMLESS, MACHINE
from ..slurm.failures import LOGS, STATES, explain_reason

# Each line that shows a failure has one of these words: most lines of a long log are passed over at once.
_SUSPICIOUS = (
    "err", "fail", "fault", "fatal", "kill", "crash", "died", "dead", "lost", "abort", "cancel", "could", "can't",
    "cannot", "unable", "n't", "neither", "memory", "alloc", "space", "quota", "limit", "exceed", "greater", "larger",
    "timed", "timeout", "refused", "denied", "reset", "closed", "broken", "stale", "invalid", "unsupported",
    "unknown", "unrecogni", "undefined", "missing", "lacks", "illegal", "bad", "divisible", "gated", "restricted",
    "must", "expected", "requires", "custom", "xid", "exception", "slurminfer:", "quantization", "transport", "oom",
    "prolog", "instruction", "eof", "no ", "not ", "too ", "out of", "in use",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Log:
    """The text of one log, or anything else that was said of a job.

    Args:
        known: the failures that its writer is known for, besides those of Slurm and of the machine.
    """

    text: str
    log_format: LogFormat = PLAIN
    known: Sequence[KnownFailure] = ()


def explain(logs: Sequence[Log], status: JobStatus, *, has_worked: bool = False) -> Explanation:
    """Why a job has ended.

    What Slurm did to it counts first: memory, walltime, preemption, scancel, a failed node. Else the first line of the
    first log that shows a known failure which is no consequence of another one; then such a consequence, then Slurm's
    reason. Of an unknown failure there is the line alone: the first exception raised, else what looks like one.

    Args:
        logs: of all its tasks and engine processes, those of the process that ended first before the others.
        status: of the job; `ending` where it is known.
        has_worked: whether the program had started before it ended.
    """
    in_logs = _find(logs, has_worked)
    of_slurm = _of_slurm(status, in_logs)
    if of_slurm is not None:
        return replace(of_slurm, line=in_logs.line if in_logs else _complaint(logs))
    found = in_logs or _find_echo(logs) or explain_reason(status.reason, has_worked=has_worked)
    return found or Explanation(line=_complaint(logs) or _last_line(logs))


def _of_slurm(status: JobStatus, in_logs: Explanation | None) -> Explanation | None:
    ending = status.ending
    if ending is not None and ending.preempted:
        return STATES["PREEMPTED"]
    found = STATES.get(status.state)
    if found is None or ending is None:
        return found
    if status.state == "CANCELLED" and ending.cancelled_by:
        return replace(found, cause=f"the job was cancelled by {ending.cancelled_by} (scancel)")
    if status.state == "OUT_OF_MEMORY" and ending.memory:
        return replace(found, cause=f"{found.cause}: {ending.memory}")
    return found


def _find(logs: Sequence[Log], has_worked: bool) -> Explanation | None:
    for log in logs:
        table = [row for row in (*log.known, *LOGS, *CONTAINERS, *MACHINE) if not (row.at_start and has_worked)]
        if found := find(_lines(log), table):
            return found
    return None


def _find_echo(logs: Sequence[Log]) -> Explanation | None:
    lines = [line for log in logs for line in _lines(log)]
    known = dict.fromkeys(row for log in logs for row in log.known)
    return find_echo(lines, (*MACHINE, *LOGS, *known))


def _lines(log: Log) -> Iterator[str]:
    messages = messages_of(log.text, log.log_format)
    return (line for line in messages if _is_suspicious(line) and not HARMLESS.search(line))


def _is_suspicious(line: str) -> bool:
    lowered = line.lower()
    return any(word in lowered for word in _SUSPICIOUS)


def _complaint(logs: Sequence[Log]) -> str:
    return next((line for log in logs if (line := complaint(log.text, log.log_format))), "")


def _last_line(logs: Sequence[Log]) -> str:
    return next((line for log in logs if (line := root_cause(log.text, log.log_format))), "")
