"""What Slurm says about jobs, with and without accounting.

No column is asked for that Slurm 20.11 lacks. The jobs' names, which users write, come last, and are this user's own.
`squeue --states=all` also knows the jobs that ended within MinJobAge (slurm.conf); accounting, where a cluster has it,
knows the older ones.
"""

import signal
from collections.abc import Iterable, Iterator, Sequence

from ..core.errors import SlurmError
from ..core.job import JobPhase, JobStatus
from . import client
from .client import UNIX_TIMES, ask
from .hostlist import expand
from .queue import queue
from .states import phase_of, state_word
from .values import NOTHING, duration_s, unix_time

_SACCT = (
    "sacct", "--noheader", "--parsable2", "--allocations",
    "--format=JobID,State,NodeList,ExitCode,Start,End,Timelimit,Partition,QOS,JobName",
)  # fmt: skip
_DELIMITERS = 9
_IDS_A_CALL = 1000  # a word of a command line has at most 128 KiB


def observe(ids: Sequence[str]) -> dict[str, JobStatus]:
    """One status for every id, UNKNOWN for those that nobody remembers. Raises SlurmError if squeue gets no answer."""
    if not ids:
        return {}
    found = queue(ids)
    missing = [job for job in ids if job not in found]
    if missing:
        found |= parse_sacct("".join(_sacct(chunk) for chunk in _chunks(missing)))
    return {job: found.get(job) or JobStatus(id=job, phase=JobPhase.UNKNOWN, state="UNKNOWN") for job in ids}


def parse_sacct(text: str) -> dict[str, JobStatus]:
    """Rows of id|state|nodes|exit code:signal|start|end|time limit|partition|QOS|name; times in Unix seconds.

    Of a requeued job sacct shows the last run only.
    """
    rows = (line.split("|", _DELIMITERS) for line in text.split("\n") if line.count("|") >= _DELIMITERS)
    return {row[0]: _status(row) for row in rows}


def _chunks(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    return (ids[first : first + _IDS_A_CALL] for first in range(0, len(ids), _IDS_A_CALL))


def _sacct(ids: Iterable[str]) -> str:
    """sacct's rows for `ids`; none on a cluster without accounting, or where it does not answer."""
    try:
        return ask([*_SACCT, client.own_jobs(), f"--jobs={','.join(ids)}"], UNIX_TIMES)
    except SlurmError:
        return ""


def _status(row: Sequence[str]) -> JobStatus:
    job, state, nodes, code, start, end, limit, partition, qos, name = row
    return JobStatus(
        id=job,
        phase=phase_of(state),
        state=state_word(state),
        reason=_exit_reason(state, code),
        node="" if nodes in NOTHING else nodes,
        nodes=expand(nodes),
        started_at=unix_time(start),
        ends_at=unix_time(end),
        limit_s=duration_s(limit),
        partition=partition,
        qos=qos,
        name=name,
    )


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
