"""Jobs as processes of this machine: what serves a deployment where there is no Slurm, or inside one Slurm job."""

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

from ...core.errors import RunDirectoryError, SlurminferError, SpecError
from ...core.job import JobPhase, JobRequest, JobStatus
from ...core.slurm_env import LOCAL

_LOG = "process.log"
# Start times are compared after a round trip through text, to the precision of the kernel's clock tick.
_SAME_START_S = 0.02


class LocalLauncher:
    """A job is a process in a session of its own. Its id is PID@STARTTIME, so that a reused pid is not mistaken."""

    name = "local"

    def submit(self, request: JobRequest) -> str:
        """Start the process; its id. Raises SpecError for more than one node, SlurminferError where it cannot start."""
        _refuse_what_needs_slurm(request)
        request.log_folder.mkdir(parents=True, exist_ok=True)
        return _spawn(_argv(request), {**os.environ, **request.env, **LOCAL}, request.log_folder / _LOG)

    def render(self, request: JobRequest) -> str:
        """The command line that `submit` would run, with its environment. Raises SpecError for more than one node."""
        _refuse_what_needs_slurm(request)
        words = [*(f"{key}={value}" for key, value in request.env.items()), *_argv(request)]
        return subprocess.list2cmdline(words) + "\n"

    def observe(self, ids: Sequence[str]) -> dict[str, JobStatus]:
        """One status for every id: RUNNING, or DONE, since nobody remembers how a process ended."""
        return {job_id: _status(job_id) for job_id in ids}

    def cancel(self, ids: Sequence[str]) -> None:
        """Send SIGTERM to the processes; those that have ended are no error."""
        for job_id in ids:
            process = _living(job_id)
            if process is not None:
                process.send_signal(signal.SIGTERM)

    def kill(self, ids: Sequence[str]) -> None:
        """End at once what `cancel` could not; engines die with their agents."""
        for job_id in ids:
            process = _living(job_id)
            if process is not None:
                process.kill()


def _spawn(argv: list[str], env: Mapping[str, str], log: Path) -> str:
    """Start what shall outlive this process (so no Popen, which wants to be waited for); its id."""
    files = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, str(log), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644),
        (os.POSIX_SPAWN_DUP2, 1, 2),
    ]
    try:
        pid = os.posix_spawnp(argv[0], argv, env, file_actions=files, setsid=True)
    except OSError as error:
        raise SlurminferError(f"cannot start {argv[0]}: {error.strerror}") from error
    return f"{pid}@{psutil.Process(pid).create_time():.2f}"


def _argv(request: JobRequest) -> list[str]:
    if not request.setup:
        return list(request.entry.argv())
    script = "\n".join([*request.setup, 'exec "$@"'])
    return ["bash", "-c", script, "bash", *request.entry.argv()]


def _refuse_what_needs_slurm(request: JobRequest) -> None:
    if request.nodes > 1:
        raise SpecError("nodes", request.nodes, f"{request.role}: more than one node needs Slurm (without --local)")


def _living(job_id: str) -> psutil.Process | None:
    pid, _, started = job_id.partition("@")
    try:
        process = psutil.Process(int(pid))
        same = abs(process.create_time() - float(started)) < _SAME_START_S
        return process if same and process.status() != psutil.STATUS_ZOMBIE else None
    except psutil.NoSuchProcess:
        return None
    except (ValueError, OverflowError) as error:
        raise RunDirectoryError(f"job {job_id!r} of launcher 'local': expected PID@STARTTIME") from error


def _status(job_id: str) -> JobStatus:
    if _living(job_id) is not None:
        return JobStatus(id=job_id, phase=JobPhase.RUNNING, state="RUNNING", node=os.uname().nodename)
    return JobStatus(id=job_id, phase=JobPhase.DONE, state="ENDED")
