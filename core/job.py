"""A job as every launcher understands it, and what can be seen of one. Slurm and local mode both speak this."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol

import msgspec

from .keys import MASK, is_secret_name

_ANOTHERS = "Slurm has lost this job, and given its number to another one"
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def is_variable(name: str) -> bool:
    """Whether a shell can export an environment variable of this name."""
    return _VARIABLE.fullmatch(name) is not None


def shown_env(env: Mapping[str, str]) -> dict[str, str]:
    """The variables as they may be shown to others: `***` for the values of those with secret names."""
    return {name: MASK if is_secret_name(name) else value for name, value in env.items()}


def gpu_gres(options: Mapping[str, str | int | bool]) -> str | None:
    """What sbatch's --gres asks for, where it asks for GPUs; that then says which, and not --gpus-per-node."""
    gres = str(options.get("gres", ""))
    return gres if any(part.split(":")[0].removeprefix("gres/") == "gpu" for part in gres.split(",")) else None


class Entry(Protocol):
    """What a job does: it can be pickled, called, and written as a command line."""

    def __call__(self) -> Any: ...

    def argv(self) -> Sequence[str]:
        """The entry as a command line, for a process without submitit."""


@dataclass(frozen=True)
class RequeueableEntry:
    """Base of entries whose job may go back to the queue. submitit pickles the entry."""

    def checkpoint(self, *_: Any, **__: Any) -> Any:
        """What submitit runs after a requeue: the same entry again. submitit calls it after the walltime signal."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)

    def __call__(self) -> Any:
        """Do what the job is for."""
        raise NotImplementedError


class JobRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What to submit. None leaves a resource to the cluster's own default."""

    name: str
    role: str  # "router" or the worker's id
    entry: Entry
    log_folder: Path
    array: int = 1  # jobs that run the entry, as one job array; their ids are ID_0, ID_1 ...; 1: a job of its own, ID
    nodes: int = 1
    cpus_per_task: int = 1
    gpus_per_node: int = 0
    mem: str | None = None  # per node, in Slurm's notation
    time_s: int = 3600
    time_min_s: int | None = None  # the scheduler may shorten the limit to this; None: it may not
    signal_s: int = 0  # seconds before the walltime limit at which the job is told; 0: not at all
    partition: str | None = None
    account: str | None = None
    setup: tuple[str, ...] = ()  # shell lines that run before the entry
    env: Mapping[str, str] = {}
    slurm: Mapping[str, str | int | bool] = {}  # further sbatch options


class JobPhase(StrEnum):
    """What a state word means for us."""

    PENDING = "pending"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    UNKNOWN = "unknown"  # nobody remembers the job

    @property
    def is_living(self) -> bool:
        """Whether the job waits or runs."""
        return self in (JobPhase.PENDING, JobPhase.RUNNING)


class JobEnding(msgspec.Struct, frozen=True, kw_only=True):
    """What the scheduler knows of how a job has ended, besides its state. Empty where it does not say."""

    cancelled_by: str = ""  # the user's name or number
    memory: str = ""  # such as "limit 100 MiB, 308 MiB seen in use"
    preempted: bool = False


class JobStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One look at one job."""

    id: str
    phase: JobPhase
    state: str  # the scheduler's own word: RUNNING, OUT_OF_MEMORY, ...
    reason: str = ""  # why it waits or failed, in the scheduler's words
    node: str = ""  # its nodes as the scheduler writes them, such as "n[1-4]"
    nodes: tuple[str, ...] = ()  # their names, one by one
    starts_at: float | None = None  # Unix time at which the scheduler expects to start it, while it waits
    started_at: float | None = None  # Unix time at which its latest run began
    ends_at: float | None = None  # Unix time at which its walltime is over while it runs, or at which it has ended
    limit_s: int | None = None  # walltime limit in seconds; None: there is none, or nobody says
    partition: str = ""  # while it waits also several, such as "cpu,low"
    qos: str = ""
    obstacle: str = ""  # why it does not start as it is, however long it waits; empty if it only has to wait
    advice: str = ""  # while it waits: what to change so that it starts
    ending: JobEnding | None = None  # of one that has ended, where it was asked for
    name: str = ""  # with which it was submitted, where the scheduler says it

    @property
    def is_anothers(self) -> bool:
        """Whether the id is that of another job than the one that was meant."""
        return self.reason == _ANOTHERS


def of_name(status: JobStatus, name: str) -> JobStatus:
    """The status, or that of a job that is gone, where the scheduler has given its id to one of another name.

    Slurm begins with its first number again when it has lost its state. `name` is empty where nobody knows it.
    """
    if not name or status.name in ("", name):
        return status
    return JobStatus(id=status.id, phase=JobPhase.FAILED, state="UNKNOWN", reason=_ANOTHERS)


class Launcher(Protocol):
    """Where jobs run. All methods raise SlurminferErrors only."""

    name: str

    def check(self, request: JobRequest) -> None:
        """Raise SpecError or SlurmError for a job that cannot run here, before anything is done for it."""

    def submit(self, request: JobRequest) -> str:
        """Start the job; its id."""

    def render(self, request: JobRequest) -> str:
        """Exactly what `submit` would hand over, as text."""

    def observe(self, ids: Sequence[str]) -> dict[str, JobStatus]:
        """One status for every id."""

    def find(self, request: JobRequest) -> list[str]:
        """The ids of living jobs that were submitted for this very request, by whomever of this user's processes."""

    def is_whole(self, request: JobRequest, job_id: str) -> bool:
        """Whether a job that was found can run; not where whoever submitted it died before it had left all files."""

    def cancel(self, ids: Sequence[str]) -> None:
        """Ask the jobs to end; those that have ended are no error."""

    def kill(self, ids: Sequence[str]) -> None:
        """End at once the jobs that have not ended some time after `cancel`; those that have ended are no error."""
