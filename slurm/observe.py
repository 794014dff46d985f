"""What Slurm says about jobs, with and without accounting.

Only columns that no user can write into are asked for (no job names, no comments), and none that Slurm 20.11 lacks.
`squeue --states=all` also knows the jobs that ended within MinJobAge (slurm.conf); accounting, where a cluster has it,
knows the older ones.
"""

import signal
from collections.abc import Iterable, Sequence

from ..core.errors import SlurmError
from ..core.job import JobPhase, JobStatus
from .client import ask
from .states import phase_of, state_word

_SQUEUE = ("squeue", "--noheader", "--all", "--array", "--states=all")
_SACCT = ("sacct", "--noheader", "--parsable2", "--allocations", "--format=JobID,State,NodeList,ExitCode")
_NOTHING = {"", "None", "N/A", "(null)", "None assigned"}


def observe(ids: Sequence[str]) -> dict[str, JobStatus]:
    """One status for every id, UNKNOWN for those that nobody remembers. Raises SlurmError if squeue gets no answer."""
    if not ids:
        return {}
    found = parse_squeue(_squeue(ids, "--format=%i|%T|%N|%S|%r"))
    missing = [job for job in ids if job not in found]
    if missing:
        found |= parse_sacct(_sacct(missing))
    return {job: found.get(job) or JobStatus(id=job, phase=JobPhase.UNKNOWN, state="UNKNOWN") for job in ids}


def parse_squeue(text: str) -> dict[str, JobStatus]:
    """Rows of id|state|nodes|start|reason, one per job or array task. The start is in Unix seconds, or N/A."""
    rows = (line.split("|", 4) for line in text.splitlines() if line.count("|") >= 4)
    return {job: _status(job, state, node, reason, start) for job, state, node, start, reason in rows}


def parse_sacct(text: str) -> dict[str, JobStatus]:
    """Rows of id|state|nodes|exit code:signal. Of a requeued job sacct shows the last run only."""
    rows = (line.split("|") for line in text.splitlines() if line.count("|") == 3)
    return {job: _status(job, state, node, _exit_reason(state, code)) for job, state, node, code in rows}


def _squeue(ids: Iterable[str], output: str) -> str:
    """squeue's rows for `ids`; it fails for a single unknown id, and leaves out unknown ones among several."""
    try:
        return ask([*_SQUEUE, f"--jobs={','.join(ids)}", output], env={"SLURM_TIME_FORMAT": "%s"})
    except SlurmError as error:
        if "Invalid job id" in str(error):
            return ""
        raise


def _sacct(ids: Iterable[str]) -> str:
    """sacct's rows for `ids`; none on a cluster without accounting, or where it does not answer."""
    try:
        return ask([*_SACCT, f"--jobs={','.join(ids)}"])
    except SlurmError:
        return ""


def _status(job: str, state: str, node: str, reason: str, start: str = "") -> JobStatus:
    node, reason = ("" if value in _NOTHING else value for value in (node, reason))
    phase = phase_of(state)
    starts_at = float(start) if phase is JobPhase.PENDING and start.isdecimal() else None
    return JobStatus(id=job, phase=phase, state=state_word(state), reason=reason, node=node, starts_at=starts_at)


def _exit_reason(state: str, code: str) -> str:
    """What sacct's "3:0" says about a job that failed."""
    status, _, number = code.partition(":")
    return _exit_words(_number(status), _number(number)) if state_word(state) == "FAILED" else ""


def _exit_words(code: int, number: int) -> str:
    if number:
        return f"signal {number}, {signal.strsignal(number)}"
    return f"exit code {code}" if code else ""


def _number(text: str) -> int:
    return int(text) if text.isdigit() else 0
