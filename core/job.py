"""A job as every launcher understands it, and what can be seen of one. Slurm and local mode both speak this."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol

import msgspec

from .keys import MASK, is_secret_name

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def is_variable(name: str) -> bool:
    """Whether a shell can export an environment variable of this name."""
    return _VARIABLE.fullmatch(name) is not None


def shown_env(env: Mapping[str, str]) -> dict[str, str]:
    """The variables as they may be shown to others: `***` for the values of those with secret names."""
    return {name: MASK if is_secret_name(name) else value for name, value in env.items()}


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
    nodes: int = 1
    cpus_per_task: int = 1
    gpus_per_node: int = 0
    mem: str | None = None  # per node, in Slurm's notation
    time_s: int = 3600
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


class JobStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One look at one job."""

    id: str
    phase: JobPhase
    state: str  # the scheduler's own word: RUNNING, OUT_OF_MEMORY, ...
    reason: str = ""  # why it waits or failed, in the scheduler's words
    node: str = ""
    starts_at: float | None = None  # Unix time at which the scheduler expects to start it, while it waits


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

    def cancel(self, ids: Sequence[str]) -> None:
        """Ask the jobs to end; those that have ended are no error."""

    def kill(self, ids: Sequence[str]) -> None:
        """End at once the jobs that have not ended some time after `cancel`; those that have ended are no error."""
