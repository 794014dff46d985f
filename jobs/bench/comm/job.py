"""`slurminfer bench comm`: how nodes communicate, measured over the nodes of a job and kept in the site profile.

Inside an allocation the ranks are a step of it; outside, they get a job of their own; without Slurm they are processes
of this machine. The ranks and this command meet in one directory below `$SLURMINFER_HOME/jobs`.
"""

import re
import secrets
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args, get_type_hints

import msgspec

from ....core.errors import CommunicationError, UsageError
from ....core.files import claim, make_directory, read_private, write_atomic
from ....core.job import JobPhase, JobRequest, JobStatus, Launcher
from ....core.paths import jobs_root, make_home
from ....core.processes.python import module_argv
from ....core.site.communication import CommProfile
from ....core.site.store import read_comm
from ....core.slurm_env import LOCAL, task_rank
from ....quant.progress import Progress
from ...launch.follow import no_result, until_ended
from ...launch.request import request_of
from .group import SECRET, CommTask
from .ranks import run_here, run_step
from .where import Job, JobStep, Where
from .worker import RESULT, TASK

SIZES = "1K,4K,16K,64K,256K,1M,4M,16M,64M"
_FAILURE = "failure"  # of the node that failed first; the others follow
_RESULT_PATIENCE_S = 30.0  # NFS shows a new file late
_SIZE = re.compile(r"(\d+)([KM]?)")
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20}
_SMALLEST = 4  # bytes: one number


@dataclass(frozen=True, kw_only=True)
class CommEntry:
    """What the job does, on every node once: run this node's ranks."""

    folder: Path
    ranks_per_node: int

    def __call__(self) -> None:
        """Run the ranks of this node to their end. Raises CommunicationError."""
        first = task_rank() * self.ranks_per_node
        task = msgspec.json.decode(read_private(self.folder / TASK) or "", type=CommTask)
        try:
            run_here(self.folder, range(first, first + self.ranks_per_node), {}, task.limit_s)
        except CommunicationError as error:
            claim(self.folder / _FAILURE, str(error))
            raise

    def argv(self) -> Sequence[str]:
        """A command that measures the same in an allocation of the same nodes."""
        return module_argv("slurminfer", "bench", "comm", f"--ranks-per-node={self.ranks_per_node}")


def bench(where: Where, task: CommTask, progress: Progress) -> CommProfile:
    """Measure. What the ranks leave on disk is kept if they fail.

    Raises CommunicationError that names the rank, SlurmError, RunDirectoryError.
    """
    folder = jobs_root() / f"bench-comm-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"
    make_home()
    prepare(folder, task)
    if isinstance(where, Job):
        from ...launch.launchers import launcher_named

        _run_job(where, folder, launcher_named("slurm"), progress)
    else:
        progress("measure", 0, 0)
        if isinstance(where, JobStep):
            run_step(folder, where.nodes, where.ranks_per_node, task.limit_s)
        else:
            run_here(folder, range(where.ranks), LOCAL, task.limit_s)
    profile = _result(folder)
    shutil.rmtree(folder, ignore_errors=True)  # NFS keeps what somebody has open
    return profile


def prepare(folder: Path, task: CommTask) -> None:
    """Write what the ranks need to know: the task, and a secret by which they know each other.

    Raises RunDirectoryError.
    """
    make_directory(folder)
    write_atomic(folder / TASK, msgspec.json.encode(task).decode())
    write_atomic(folder / SECRET, secrets.token_hex(32))


def request(where: Job, folder: Path) -> JobRequest:
    """The Slurm job that runs the ranks. Pure."""
    spec = where.spec
    return request_of(
        spec,
        name="bench-comm",
        role="bench-comm",
        entry=CommEntry(folder=folder, ranks_per_node=where.ranks_per_node),
        log_folder=folder,
        time_s=spec.time_s,
        nodes=spec.nodes,
        gpus_per_node=spec.gpus_per_node,
        slurm={"no-requeue": True},  # its command would have to know; whoever wants it starts it again
    )


def sizes(text: str) -> tuple[int, ...]:
    """The bytes that a list such as "1K,64K,1M" names, rising. Raises UsageError."""
    found = [_SIZE.fullmatch(part.strip()) for part in text.split(",")]
    numbers = {int(match[1]) * _UNITS[match[2]] for match in found if match}
    if not all(found) or len(numbers) < 2 or min(numbers) < _SMALLEST:
        raise UsageError(f"--sizes {text!r}: expected two or more of {_SMALLEST} bytes or more, such as 1K,64K,4M")
    return tuple(sorted(numbers))


def task(where: Where, sizes: tuple[int, ...], backend: str, seconds: float, timeout_s: float) -> CommTask:
    """What the ranks have to measure. Raises UsageError."""
    known = get_args(get_type_hints(CommTask)["backend"])
    if backend not in known:
        raise UsageError(f"--backend {backend!r}: expected one of {', '.join(known)}")
    for option, value in (("--seconds", seconds), ("--timeout", timeout_s)):
        if not value > 0:
            raise UsageError(f"{option} {value:g}: expected more than 0")
    return msgspec.convert(
        {"ranks": where.ranks, "sizes": sizes, "backend": backend, "seconds": seconds, "timeout_s": timeout_s}, CommTask
    )


def _run_job(where: Job, folder: Path, launcher: Launcher, progress: Progress) -> None:
    """Until the job has ended; it does not outlive this command."""
    job_id = launcher.submit(request(where, folder))
    try:
        status = until_ended(job_id, launcher, lambda seen: _show(seen, progress))
    except BaseException:
        launcher.cancel([job_id])
        raise
    if status.phase is not JobPhase.DONE and not (folder / RESULT).exists():
        raise no_result(status, folder, read_private(folder / _FAILURE))


def _show(status: JobStatus, progress: Progress) -> None:
    running = status.phase is JobPhase.RUNNING
    reason = f" ({status.reason})" if status.reason else ""
    progress("measure" if running else f"job {status.id} {status.state.lower()}{reason}", 0, 0)


def _result(folder: Path) -> CommProfile:
    deadline = time.monotonic() + _RESULT_PATIENCE_S
    while (profile := read_comm(folder / RESULT)) is None:
        if time.monotonic() > deadline:
            raise CommunicationError(f"the ranks have ended without a result; logs in {folder}")
        time.sleep(0.1)
    return profile
