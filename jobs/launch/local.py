"""Jobs as processes of this machine: what serves a deployment where there is no Slurm, or inside one Slurm job."""

import itertools
import os
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import psutil

from ...core import files
from ...core.errors import RunDirectoryError, SlurminferError, SpecError
from ...core.job import JobPhase, JobRequest, JobStatus, shown_env
from ...core.processes import process_id
from ...core.processes.setup import watched
from ...core.rundir import PROCESS_LOG
from ...core.slurm_env import LOCAL
from ...core.trust import PRIVATE_FILE

# Setup lines may hold secrets, and a process list shows command lines to everybody, but environments only to the owner.
_SETUP = "SLURMINFER_SETUP"
_SHELL = f'setup=${_SETUP}; unset {_SETUP}; eval "$setup"; unset setup; exec "$@"'


class LocalLauncher:
    """A job is a process in a session of its own. Its id is that of core/processes/process_id.py."""

    name = "local"

    def check(self, request: JobRequest) -> None:
        """Raise SpecError for more than one node."""
        if request.nodes > 1:
            raise SpecError("nodes", request.nodes, f"{request.role}: more than one node needs Slurm (without --local)")

    def submit(self, request: JobRequest) -> str:
        """Start the process; its id. What it writes is for this user alone, unless it sets another umask.

        Raises SpecError for more than one node, SlurminferError where it cannot start.
        """
        self.check(request)
        files.make_directory(request.log_folder)
        _set_aside(request.log_folder / PROCESS_LOG)
        return _spawn(_argv(request), {**os.environ, **_env(request), **LOCAL}, request.log_folder / PROCESS_LOG)

    def render(self, request: JobRequest) -> str:
        """The command line that `submit` would run, with its environment, without values that look secret.

        Raises SpecError for more than one node.
        """
        self.check(request)
        words = [*(f"{key}={value}" for key, value in shown_env(_env(request)).items()), *_argv(request)]
        return subprocess.list2cmdline(words) + "\n"

    def observe(self, ids: Sequence[str]) -> dict[str, JobStatus]:
        """One status for every id: RUNNING, or DONE, since nobody remembers how a process ended."""
        return {job_id: _status(job_id) for job_id in ids}

    def find(self, request: JobRequest) -> list[str]:
        """The ids of living processes with the request's command line."""
        wanted = list(request.entry.argv())
        return [job_id for words, job_id in _own_processes() if words[-len(wanted) :] == wanted]

    def is_whole(self, request: JobRequest, job_id: str) -> bool:
        """It is: a process that was started needs nothing more."""
        return True

    def cancel(self, ids: Sequence[str]) -> None:
        """Send SIGTERM to the processes; those that have ended are no error."""
        for job_id in ids:
            _signal(job_id, signal.SIGTERM)

    def kill(self, ids: Sequence[str]) -> None:
        """End at once what `cancel` could not; engines die with their agents."""
        for job_id in ids:
            _signal(job_id, signal.SIGKILL)


def _own_processes() -> Iterator[tuple[list[str], str]]:
    """Command line and id of this user's processes."""
    for process in psutil.process_iter(["cmdline", "uids"]):
        if process.info["uids"] is not None and process.info["uids"].real == os.getuid():
            with suppress(ProcessLookupError):
                yield process.info["cmdline"] or [], process_id.process_id(process.pid)


def _set_aside(log: Path) -> None:
    """Rename the log of an earlier job of the role: what went wrong then must not be taken for what goes wrong now."""
    names = (log.with_suffix(f".{number}.log") for number in itertools.count(1))
    with suppress(FileNotFoundError):
        log.rename(next(name for name in names if not name.exists()))


def _spawn(argv: list[str], env: Mapping[str, str], log: Path) -> str:
    """Start what shall outlive this process (so no Popen, which wants to be waited for); its id."""
    opened = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, str(log), os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, PRIVATE_FILE),
        (os.POSIX_SPAWN_DUP2, 1, 2),
    ]
    try:
        with files.private_umask():
            pid = os.posix_spawnp(argv[0], argv, env, file_actions=opened, setsid=True)
    except OSError as error:
        raise SlurminferError(f"cannot start {argv[0]} with its log {log}: {error.strerror}") from error
    try:
        return process_id.process_id(pid)
    except ProcessLookupError as error:
        raise SlurminferError(f"{argv[0]} has ended at once; its log is {log}") from error


def _argv(request: JobRequest) -> list[str]:
    if not request.setup:
        return list(request.entry.argv())
    return ["bash", "-c", _SHELL, "bash", *request.entry.argv()]


def _env(request: JobRequest) -> dict[str, str]:
    """What the process gets besides this one's environment."""
    return {**request.env, **({_SETUP: "\n".join(watched(request.setup))} if request.setup else {})}


def _signal(job_id: str, number: int) -> None:
    if not _is_living(job_id):
        return
    try:
        os.kill(process_id.pid_of(job_id), number)
    except ProcessLookupError:
        return  # it has ended since
    except PermissionError as error:
        raise SlurminferError(f"process {job_id} belongs to another user: {error.strerror}") from error


def _is_living(job_id: str) -> bool:
    try:
        return process_id.is_running(job_id)
    except ValueError as error:
        raise RunDirectoryError(f"job {job_id!r} of launcher 'local': expected PID@TICKS-BOOT") from error


def _status(job_id: str) -> JobStatus:
    if _is_living(job_id):
        return JobStatus(id=job_id, phase=JobPhase.RUNNING, state="RUNNING", node=os.uname().nodename)
    return JobStatus(id=job_id, phase=JobPhase.DONE, state="ENDED")
