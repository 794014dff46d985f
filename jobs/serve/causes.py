"""Why a job of a deployment has ended, from the scheduler and the logs."""

import re
from pathlib import Path

from ...core.errors import RunDirectoryError, SpecError
from ...core.job import JobStatus
from ...core.logs import PLAIN, LogFormat, complaint, oldest_first, root_cause, tail
from ...core.records import JobRecord, WorkerRecord
from ...core.rundir import RunDirectory
from ...nodes.engines.table import adapter_of
from .requests import ROUTER

# What a task of a Slurm job writes: "submitit INFO (2026-11-28 19:30:37,002) - Starting with JobEnvironment(...)".
_TASK_LOG = LogFormat(prefix=re.compile(r"submitit (?P<level>[A-Z]+) \([^)]*\) - "))
_TASK_BEGINS = "Starting with JobEnvironment"
_SAYS_NOTHING = ("NonZeroExitCode", "ENDED", "FAILED")  # besides that the job has failed


def why(run: RunDirectory, job: JobRecord, status: JobStatus) -> str:
    """Why a job ended: the scheduler's own reason, and the root cause out of its newest log that has one."""
    texts = [(_text(path), _format_of(path, run, job.role)) for path in _newest_first(run.logs_of(job.role))]
    causes = [cause for text, log_format in texts if (cause := complaint(text, log_format))]
    last_lines = [line for text, log_format in texts if (line := root_cause(text, log_format))]
    said = next(iter([*causes, *last_lines]), "")
    word = status.reason or status.state
    return said if said and word in _SAYS_NOTHING and causes else ": ".join(part for part in (word, said) if part)


def dead_node(run: RunDirectory, record: WorkerRecord | None) -> str:
    """What the agent of a further node said of its engine's death, where the worker's head could say nothing more."""
    if record is None:
        return ""
    try:
        nodes = run.read_nodes(record.id, record.epoch, run.read_spec().pool_of(record.id).nodes)
    except (RunDirectoryError, SpecError) as error:
        return str(error)
    return next((str(node) for node in nodes if node.reason), "")


def _newest_first(folder: Path) -> list[Path]:
    return oldest_first(path for kind in ("*.log", "*_log.out") for path in folder.glob(kind))[::-1]


def _text(path: Path) -> str:
    """The end of a log, of the job's last run where Slurm has requeued it."""
    return tail(path).rpartition(_TASK_BEGINS)[2]


def _format_of(path: Path, run: RunDirectory, role: str) -> LogFormat:
    if path.suffix == ".out":
        return _TASK_LOG
    if role == ROUTER:
        return PLAIN
    try:
        return adapter_of(run.read_spec().pool_of(role).engine).log_format
    except (RunDirectoryError, SpecError):  # a spec that is damaged, or without this pool: its log can still be read
        return PLAIN
