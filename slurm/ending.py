"""How Slurm ends jobs: the one around this process, and others after they have ended."""

import pwd
import time
from collections.abc import Callable, Iterable, Mapping

import msgspec

from ..core.errors import SlurmError
from ..core.job import JobEnding, JobPhase, JobStatus
from ..core.slurm_env import job_id, restart_count
from .client import ask
from .states import state_word
from .values import unix_time

_SQUEUE = ("squeue", "--noheader", "--all", "--states=all")
_WHY = "--Format=Reason:32,PreemptTime:32,State:32"
_RESTARTS = "--Format=RestartCnt:16"
_PREEMPTED = "--Format=JobID:24,PreemptTime:32"
_SACCT = ("sacct", "--noheader", "--parsable2", "--format=JobID,State,ReqMem,MaxRSS")
_UNITS = {"K": 1 / 1024, "M": 1, "G": 1024, "T": 1024**2}  # MiB
_TIME, _PREEMPTION = "its walltime limit is over", "a job of higher priority takes its nodes"
_CANCELLED = "the job was cancelled"
_AGAIN_S = 30.0  # accounting learns of a job's end a little later


def is_taken_away() -> bool:
    """Whether Slurm itself ends the job: its walltime limit is over, or a job of higher priority wants the nodes.

    Both let it be requeued. False for a job that was cancelled, outside of a job, and where Slurm does not answer.
    """
    return why_ended() in (_TIME, _PREEMPTION)


def why_ended() -> str:
    """Why Slurm ends the job around this process, in words; empty where it does not end it, or does not answer."""
    job = job_id()
    return "" if job is None else parse(_quietly([*_SQUEUE, _WHY, f"--jobs={job}"]))


def is_requeued() -> bool:
    """Whether the job around this process was sent back to the queue while it runs, as 'scontrol requeue' does.

    False outside of a job, and where Slurm does not answer.
    """
    job = job_id()
    said = "" if job is None else _quietly([*_SQUEUE, _RESTARTS, f"--jobs={job}"]).strip()
    return said.isdigit() and int(said) > restart_count()


def ends_at() -> float | None:
    """Unix time of the walltime limit of the job around this process; None outside of a job, or without an answer.

    Slurm may have shortened the job (sbatch --time-min), and tells jobs their end by themselves since 23.02 only.
    """
    job = job_id()
    return None if job is None else unix_time(_quietly([*_SQUEUE, "--format=%e", f"--jobs={job}"]).strip())


def parse(text: str) -> str:
    """The same from a row of the reason, the Unix time of the preemption (N/A for a job without one) and the state."""
    reason, preempted_at, state, *_ = [*text.split(), "", "", ""]
    if preempted_at.isdigit():
        return _PREEMPTION
    if reason == "TimeLimit":
        return _TIME
    return _CANCELLED if state in ("COMPLETING", "CANCELLED") else ""


class Endings:
    """Asks Slurm how jobs have ended, and remembers it, for whoever looks at the same jobs again and again.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._known: dict[tuple[str, str, float | None], JobEnding] = {}
        self._asked_at = float("-inf")

    def complete(self, statuses: Mapping[str, JobStatus]) -> dict[str, JobStatus]:
        """The statuses, those of jobs that have failed with their `ending` where Slurm tells it."""
        dead = {id: status for id, status in statuses.items() if _may_tell(status)}
        missing = [id for id, status in dead.items() if _key(status) not in self._known]
        if missing and self._clock() - self._asked_at >= _AGAIN_S:
            self._asked_at = self._clock()
            for id, ending in _ask(missing).items():
                if id in dead and ending != JobEnding():
                    self._known[_key(dead[id])] = ending
        return {
            id: msgspec.structs.replace(status, ending=self._known.get(_key(status))) if id in dead else status
            for id, status in statuses.items()
        }


def parse_sacct(text: str) -> dict[str, JobEnding]:
    """How jobs have ended, from rows of id|state|memory asked for|memory used, of jobs and their steps."""
    found: dict[str, JobEnding] = {}
    limits: dict[str, str] = {}
    used: dict[str, float] = {}
    for id, state, limit, most in (line.split("|") for line in text.splitlines() if line.count("|") == 3):
        job, _, step = id.partition(".")
        used[job] = max(used.get(job, 0.0), _mebibytes(most))
        if not step:
            limits[job] = limit
            found[job] = JobEnding(cancelled_by=_canceller(state))
    return {
        job: msgspec.structs.replace(ending, memory=_memory(limits.get(job, ""), used.get(job, 0.0)))
        for job, ending in found.items()
    }


def parse_preempted(text: str) -> set[str]:
    """The ids of jobs that were preempted, from rows of the id and the Unix time of the preemption."""
    rows = (line.split() for line in text.splitlines())
    return {row[0] for row in rows if len(row) == 2 and row[1].isdigit()}


def _may_tell(status: JobStatus) -> bool:
    return status.phase in (JobPhase.FAILED, JobPhase.DONE)


def _key(status: JobStatus) -> tuple[str, str, float | None]:
    return status.id, status.state, status.started_at  # of a requeued job each run ends in its own way


def _ask(ids: Iterable[str]) -> dict[str, JobEnding]:
    """How the jobs have ended; nothing where Slurm does not answer or has no accounting."""
    jobs = f"--jobs={','.join(ids)}"
    found = parse_sacct(_quietly([*_SACCT, jobs]))
    preempted = parse_preempted(_quietly([*_SQUEUE, _PREEMPTED, jobs]))
    for id in preempted:
        found[id] = msgspec.structs.replace(found.get(id, JobEnding()), preempted=True)
    return found


def _quietly(argv: list[str]) -> str:
    try:
        return ask(argv, env={"SLURM_TIME_FORMAT": "%s"})
    except SlurmError:
        return ""


def _canceller(state: str) -> str:
    """The user in "CANCELLED by 1001"."""
    uid = state.rpartition(" by ")[2]
    if state_word(state) != "CANCELLED" or not uid.isdecimal():
        return ""
    try:
        return f"{pwd.getpwuid(int(uid)).pw_name} (user {uid})"
    except (KeyError, OverflowError):
        return f"user {uid}"


def _memory(limit: str, used: float) -> str:
    """In words; `limit` as sacct writes it: "4G", of older versions "4Gn" by node and "100Mc" by CPU."""
    per = {"n": " a node", "c": " a CPU"}.get(limit[-1:], "")
    asked = _mebibytes(limit.rstrip("nc"))
    parts = [f"limit {_shown(asked)}{per}" if asked else "", f"{_shown(used)} seen in use" if used else ""]
    return ", ".join(part for part in parts if part)


def _mebibytes(text: str) -> float:
    """A size as sacct writes it, such as 315848K; 0 for what is none."""
    number, unit = (text[:-1], text[-1:]) if text[-1:] in _UNITS else (text, "K")
    try:
        return float(number) * _UNITS[unit]
    except ValueError:
        return 0.0


def _shown(mebibytes: float) -> str:
    return f"{mebibytes / 1024:.1f} GiB" if mebibytes >= 1024 else f"{mebibytes:.0f} MiB"
