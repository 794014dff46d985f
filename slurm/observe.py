"""What Slurm says about jobs, with and without accounting.

Only columns that no user can write into are asked for (no job names, no comments), and none that Slurm 20.11 lacks.
`squeue --states=all` also knows the jobs that ended within MinJobAge (slurm.conf); accounting, where a cluster has it,
knows the older ones.
"""

import os
import signal
from collections.abc import Iterable, Sequence

import msgspec

from ..core.errors import SlurmError
from ..core.job import JobPhase, JobStatus
from .client import ask
from .states import phase_of, state_word

_SQUEUE = ("squeue", "--noheader", "--all", "--array", "--states=all")
_SACCT = ("sacct", "--noheader", "--parsable2", "--allocations", "--format=JobID,State,NodeList,ExitCode")
_DETAIL_WIDTHS = {"JobArrayID": 64, "State": 32, "Reason": 64, "exit_code": 16, "RestartCnt": 16, "EndTime": 32}
_NOTHING = {"", "None", "N/A", "(null)", "None assigned"}


class JobDetails(msgspec.Struct, frozen=True, kw_only=True):
    """A closer look at one job."""

    state: str
    reason: str  # why it waits or failed
    wait_status: int  # of its batch script, as wait(2) reports it
    restarts: int
    ends_at: float | None  # Unix seconds: walltime limit of a running job, end of an ended one


def observe(ids: Sequence[str]) -> dict[str, JobStatus]:
    """One status for every id, UNKNOWN for those that nobody remembers. Raises SlurmError if squeue gets no answer."""
    if not ids:
        return {}
    found = parse_squeue(_squeue(ids, "--format=%i|%T|%N|%r"))
    missing = [job for job in ids if job not in found]
    if missing:
        found |= parse_sacct(_sacct(missing))
    return {job: found.get(job) or JobStatus(id=job, phase=JobPhase.UNKNOWN, state="UNKNOWN") for job in ids}


def job_details(job_id: str) -> JobDetails | None:
    """What slurmctld remembers of one job; None if it has forgotten it. Raises SlurmError."""
    columns = ",".join(f"{name}:{width}" for name, width in _DETAIL_WIDTHS.items())
    return parse_details(_squeue([job_id], f"--Format={columns}")).get(job_id)


def job_end_time(job_id: str) -> float | None:
    """When the job's walltime ends, in Unix seconds; None if it has no limit or is not known. Raises SlurmError."""
    details = job_details(job_id)
    return details.ends_at if details else None


def root_cause(job_id: str) -> str:
    """Why a job ended, in Slurm's words: OUT_OF_MEMORY, NODE_FAIL, PREEMPTED, TIMEOUT, "FAILED (exit code 3)".

    Empty for a job that has not ended, that ended well, or that nobody remembers. Raises SlurmError.
    """
    details = job_details(job_id)
    if details:
        return cause_of(details)
    status = parse_sacct(_sacct([job_id])).get(job_id)
    if status is None or status.phase is not JobPhase.FAILED:
        return ""
    return f"{status.state} ({status.reason})" if status.reason else status.state


def cause_of(details: JobDetails) -> str:
    """The words for `root_cause`."""
    if phase_of(details.state) is not JobPhase.FAILED:
        return ""
    if details.state != "FAILED":
        return details.state
    ended = _exit_words(os.WEXITSTATUS(details.wait_status), os.WTERMSIG(details.wait_status))
    return f"FAILED ({ended or details.reason})"


def parse_squeue(text: str) -> dict[str, JobStatus]:
    """Rows of id|state|nodes|reason, one per job or array task."""
    rows = (line.split("|", 3) for line in text.splitlines() if line.count("|") >= 3)
    return {job: _status(job, state, node, reason) for job, state, node, reason in rows}


def parse_sacct(text: str) -> dict[str, JobStatus]:
    """Rows of id|state|nodes|exit code:signal. Of a requeued job sacct shows the last run only."""
    rows = (line.split("|") for line in text.splitlines() if line.count("|") == 3)
    return {job: _status(job, state, node, _exit_reason(state, code)) for job, state, node, code in rows}


def parse_details(text: str) -> dict[str, JobDetails]:
    """Rows in columns of fixed width, as `_DETAIL_WIDTHS` asks for them."""
    rows = (list(_columns(line)) for line in text.splitlines() if line.strip())
    return {
        job: JobDetails(
            state=state_word(state),
            reason="" if reason in _NOTHING else reason,
            wait_status=_number(status),
            restarts=_number(restarts),
            ends_at=float(end) if end.isdigit() else None,
        )
        for job, state, reason, status, restarts, end in rows
    }


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


def _status(job: str, state: str, node: str, reason: str) -> JobStatus:
    node, reason = ("" if value in _NOTHING else value for value in (node, reason))
    return JobStatus(id=job, phase=phase_of(state), state=state_word(state), reason=reason, node=node)


def _exit_reason(state: str, code: str) -> str:
    """What sacct's "3:0" says about a job that failed."""
    status, _, number = code.partition(":")
    return _exit_words(_number(status), _number(number)) if state_word(state) == "FAILED" else ""


def _exit_words(code: int, number: int) -> str:
    if number:
        return f"signal {number}, {signal.strsignal(number)}"
    return f"exit code {code}" if code else ""


def _columns(line: str) -> Iterable[str]:
    for width in _DETAIL_WIDTHS.values():
        yield line[:width].strip()
        line = line[width:]


def _number(text: str) -> int:
    return int(text) if text.isdigit() else 0
