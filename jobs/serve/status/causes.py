"""Why a job of a deployment has ended, from the scheduler and the logs."""

import re
from collections.abc import Sequence
from pathlib import Path

from ....core.errors import RunDirectoryError, SpecError
from ....core.job import JobStatus
from ....core.logs.failures import Explanation, KnownFailure
from ....core.logs.text import PLAIN, LogFormat, complaint, oldest_first, root_cause, tail
from ....core.records import ROUTER, JobRecord, WorkerRecord, WorkerState
from ....core.rundir import PROCESS_LOG, RunDirectory
from ....core.workers.ids import role_of
from ....nodes.engines.table import adapter_of
from ...explain import Log, explain

# What a task of a Slurm job writes: "submitit INFO (2026-11-28 19:30:37,002) - Starting with JobEnvironment(...)".
_TASK_LOG = LogFormat(prefix=re.compile(r"submitit (?P<level>[A-Z]+) \([^)]*\) - "))
# The same, or what the router itself writes: "2026-11-28 19:30:37,002 INFO slurminfer.router.announcement: listening".
_ROUTER_PREFIX = r"(?:submitit |\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} )(?P<level>[A-Z]+) (?:\([^)]*\) - )?"
_ROUTER_LOG = LogFormat(prefix=re.compile(_ROUTER_PREFIX))
_TASK_BEGINS = "Starting with JobEnvironment"
_OF_EPOCH = re.compile(r"(?:engine|gate)\.(\d+)\.")  # engine.EPOCH.NODE.log, gate.EPOCH.log
_SAYS_NOTHING = ("NonZeroExitCode", "ENDED", "FAILED")  # besides that the job has failed
_NO_WORD = "its agent was killed, or its node was restarted: it left no reason"


def why(run: RunDirectory, job: JobRecord, status: JobStatus) -> str:
    """Why a job ended: the scheduler's own reason, and the root cause out of its newest log that has one."""
    logs = [_log(path, run, job.role) for path in _newest_first(run, job)]
    causes = [cause for log in logs if (cause := complaint(log.text, log.log_format))]
    last_lines = [line for log in logs if (line := root_cause(log.text, log.log_format))]
    said = next(iter([*causes, *last_lines]), "")
    word = status.reason or status.state
    return said if said and word in _SAYS_NOTHING and causes else ": ".join(part for part in (word, said) if part)


def explanation(
    run: RunDirectory, job: JobRecord, status: JobStatus, said: str = "", has_worked: bool = False
) -> Explanation:
    """Why a job has ended, and what to change, from what all of its ranks have written in its last run.

    Args:
        said: what its agent or router left as its reason, if anything.
        has_worked: whether it was ready before it ended.
    """
    logs = [_log(path, run, job.role) for path in _of_last_run(run, job)]
    known = _writer(run, job.role)[1]
    return explain([*logs, Log(text=said, known=known)], status, has_worked=has_worked)


def why_gone(
    run: RunDirectory, job: JobRecord, status: JobStatus, record: WorkerRecord | None, *, has_worked: bool
) -> tuple[str, Explanation]:
    """Why a worker is gone, in the words of whoever knows it, and what that means.

    Args:
        record: what its agent has left, if it is of this run of the job.
        has_worked: whether it was ready before it ended.
    """
    said = record.reason if record is not None else ""
    reason = said or _dead_node(run, record)
    if not reason and not has_worked:  # else its logs say how it has started, and not how it has ended
        reason = why(run, job, status)
    found = explanation(run, job, status, reason, has_worked)
    if not found.cause and record is not None and record.state is not WorkerState.GONE:
        found = Explanation(cause=_NO_WORD, line=found.line, may_pass=True)
    return reason, found


def _dead_node(run: RunDirectory, record: WorkerRecord | None) -> str:
    """What the agent of a further node said of its engine's death, where the worker's head could say nothing more."""
    if record is None:
        return ""
    try:
        nodes = run.read_nodes(record.id, record.epoch, run.read_spec().pool_of(record.id).nodes)
    except (RunDirectoryError, SpecError) as error:
        return str(error)
    return next((str(node) for node in nodes if node.reason), "")


def _of_last_run(run: RunDirectory, job: JobRecord) -> list[Path]:
    """The logs of a job's last run: whoever stopped writing first is likely to have failed first, so the oldest first.

    Those of the tasks come last: they repeat what engines have said.
    """
    found = _newest_first(run, job)[::-1]
    epochs = [int(match[1]) for path in found if (match := _OF_EPOCH.match(path.name))]
    newest = max(epochs, default=0)
    engines = [path for path in found if (match := _OF_EPOCH.match(path.name)) and int(match[1]) == newest]
    return [*engines, *(path for path in found if not _OF_EPOCH.match(path.name))]


def _newest_first(run: RunDirectory, job: JobRecord) -> list[Path]:
    """The logs of a job, the newest first. The router's folder has those of earlier deployments of the name too."""
    logs = run.logs_of(job.role)
    folders = [logs, *(path for path in logs.parent.glob(f"{job.role}.*") if role_of(path.name) == job.role)]
    found = oldest_first(path for folder in folders for kind in ("*.log", "*_log.out") for path in folder.glob(kind))
    found = found[::-1]
    if job.role != ROUTER:
        return found
    return [path for path in found if path.name == PROCESS_LOG or path.name.startswith(f"{job.id}_")]


def _log(path: Path, run: RunDirectory, role: str) -> Log:
    """The end of a log, of the job's last run where Slurm has requeued it."""
    log_format, known = _writer(run, role)
    if role != ROUTER and path.suffix == ".out":
        log_format = _TASK_LOG
    return Log(text=tail(path).rpartition(_TASK_BEGINS)[2], log_format=log_format, known=known)


def _writer(run: RunDirectory, role: str) -> tuple[LogFormat, Sequence[KnownFailure]]:
    """How the program of a role writes its log, and the failures that it is known for."""
    if role == ROUTER:
        return _ROUTER_LOG, ()
    try:
        adapter = adapter_of(run.read_spec().pool_of(role).engine)
    except (RunDirectoryError, SpecError):  # a spec that is damaged, or without this pool: its log can still be read
        return PLAIN, ()
    return adapter.log_format, adapter.known_failures
