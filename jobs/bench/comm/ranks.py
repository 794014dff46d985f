"""Starting the ranks of `slurminfer bench comm`, and ending all of them when one fails. Errors say which it was."""

import signal
import socket
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from ....core.errors import CommunicationError
from ....core.logs.text import lost_tasks, root_cause, tail
from ....core.processes.python import module_argv
from ....nodes.agent.process import EngineProcess
from .worker import LOST

_MODULE = "slurminfer.jobs.bench.comm.worker"
# How ranks end that have lost another: with a word of their own, or by Gloo, which may find no one to tell.
_ECHOES = (LOST, -signal.SIGABRT)
_POLL_S = 0.05
_BLAME_S = 5.0  # where ranks have only lost another one: for those who watch that one to say so, and end the job
_GRACE_S = 2.0


def run_here(folder: Path, ranks: Sequence[int], env: Mapping[str, str], limit_s: float) -> None:
    """Run these ranks as children of this process, to their end.

    Raises CommunicationError if one fails, or has not ended after `limit_s` seconds.
    """
    with ExitStack() as stack:
        processes = {}
        for local_rank, rank in enumerate(ranks):
            argv = [*_worker(folder), str(rank), str(local_rank)]
            processes[rank] = EngineProcess(argv, env, _log(folder, rank))
            stack.callback(processes[rank].stop, _GRACE_S)
        _watch(processes, time.monotonic() + limit_s)


def run_step(folder: Path, nodes: int, ranks_per_node: int, limit_s: float) -> None:
    """Run all ranks as a step of the Slurm job around this process, to their end.

    Raises CommunicationError if one fails, or has not ended after `limit_s` seconds.
    """
    argv = step_argv(folder, nodes, ranks_per_node)
    step = EngineProcess(argv, {}, folder / "srun.log")
    deadline = time.monotonic() + limit_s
    try:
        while (code := step.exit_code()) is None:
            if time.monotonic() > deadline:
                raise CommunicationError(f"the ranks have not ended after {limit_s:g} s; logs in {folder}")
            time.sleep(_POLL_S)
    finally:
        step.stop(_GRACE_S)
    if code:
        raise CommunicationError(f"{why_step_failed(folder)}; logs in {folder}")


def step_argv(folder: Path, nodes: int, ranks_per_node: int) -> list[str]:
    """One task a rank, next to each other on the nodes in turn; the first rank that fails ends the others."""
    return [
        "srun",
        f"--nodes={nodes}",
        f"--ntasks={nodes * ranks_per_node}",
        f"--ntasks-per-node={ranks_per_node}",
        "--distribution=block",
        "--cpu-bind=none",  # not that of a step around this one
        "--overlap",  # with a step around this one
        "--kill-on-bad-exit=1",
        f"--output={str(folder).replace('%', '%%')}/rank.%t.log",
        *_worker(folder),
    ]


def why_step_failed(folder: Path) -> str:
    """By what srun says of the first task that failed by itself, and by that task's log."""
    said = tail(folder / "srun.log")
    ended = lost_tasks(said)
    own = [lost for lost in ended if lost.how != f"Exited with exit code {LOST}" and not lost.how.startswith("Aborted")]
    if not ended:
        return root_cause(said) or "srun said nothing"
    first = (own or ended)[0]
    why = root_cause(tail(_log(folder, first.first_rank)))
    return f"rank {first.first_rank} on {first.hosts}: {first.how}" + (f": {why}" if why else "")


def _watch(processes: Mapping[int, EngineProcess], deadline: float) -> None:
    """Until all ranks have ended well."""
    host = socket.gethostname()
    while codes := {rank: code for rank, process in processes.items() if (code := process.exit_code()) != 0}:
        failed = [rank for rank, code in codes.items() if code is not None]
        by_themselves = [rank for rank in failed if codes[rank] not in _ECHOES]
        if failed:
            deadline = min(deadline, time.monotonic() + _BLAME_S)
        late = time.monotonic() > deadline
        if by_themselves or (failed and late):
            rank = (by_themselves or failed)[0]
            raise CommunicationError(processes[rank].exit_reason(f"rank {rank} on {host}"))
        if late:
            raise CommunicationError(f"these ranks on {host} have not ended in time: {', '.join(map(str, codes))}")
        time.sleep(_POLL_S)


def _worker(folder: Path) -> list[str]:
    return module_argv(_MODULE, str(folder))


def _log(folder: Path, rank: int) -> Path:
    return folder / f"rank.{rank}.log"
