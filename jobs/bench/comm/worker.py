"""`python -m slurminfer.jobs.bench.comm.worker FOLDER [RANK LOCAL_RANK]`: one rank of `slurminfer bench comm`.

FOLDER holds `task.json`, and all ranks see it. Without a rank it is the task of a Slurm step. Rank 0 decides what is
measured how often, and writes `result.json`.
"""

import socket
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import get_args

import msgspec

from ....core.errors import SlurminferError
from ....core.files import read_private, write_atomic
from ....core.machine.pytorch import import_pytorch
from ....core.processes.process import accept_any_text, exit_at_once
from ....core.site.communication import CommPoint, CommProfile, Operation
from ....core.site.store import encode_comm
from ....core.slurm_env import is_local, local_task_rank, partition, task_rank
from .fit import fit
from .group import Call, CommTask, Group

TASK, RESULT = "task.json", "result.json"
LOST = 3  # exit code of a rank that only found that it cannot go on with the others
_FEWEST_SIZES = 2  # a line needs them
_WARM_UP, _TRIAL = 1, 3  # calls, after the first one
_BLOCK_S, _MOST_CALLS = 0.002, 200  # calls are timed in blocks
_FEWEST_BLOCKS, _MOST_BLOCKS = 5, 200
_FEWEST_CALLS = _WARM_UP + _TRIAL + _FEWEST_BLOCKS
_LONGEST_MESSAGE = 500


def main(words: Sequence[str]) -> int:
    """Take part; the exit status: 0, 1 for what this rank can tell, LOST for what another one knows better."""
    folder = Path(words[0])
    rank, local_rank = map(int, words[1:] or (task_rank(), local_task_rank()))
    import_pytorch()
    try:
        task = msgspec.json.decode(read_private(folder / TASK) or "", type=CommTask)
        profile = measure(task, Group(task, folder, rank, local_rank))
        if profile is not None:
            write_atomic(folder / RESULT, encode_comm(profile))
    except SlurminferError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except RuntimeError as error:  # of torch.distributed
        said = " ".join(str(error).split())[:_LONGEST_MESSAGE]
        print(f"error: rank {rank} on {socket.gethostname()}: {said}", file=sys.stderr)
        return LOST
    return 0


def measure(task: CommTask, group: Group) -> CommProfile | None:
    """What was found, on rank 0; None on the others. Raises RuntimeError where a rank is lost."""
    import torch

    measured = {operation: _points(operation, group, task) for operation in get_args(Operation)}
    group.shutdown()
    if group.rank:
        return None
    return CommProfile(
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        partition=None if is_local() else partition(),
        hosts=group.hosts,
        gpu=group.gpu,
        ranks=group.ranks,
        backend=group.backend,
        interface=group.interface,
        torch=str(torch.__version__),  # a TorchVersion
        operations=tuple(fit(operation, group.ranks, points) for operation, points in measured.items()),
    )


def _points(operation: Operation, group: Group, task: CommTask) -> list[CommPoint]:
    """The time of each size, until so many seconds are over.

    Half of the time is shared out among the sizes, the rest is for the large ones, which take what they take.
    """
    points: list[CommPoint] = []
    began, share = time.monotonic(), task.seconds / 2 / len(task.sizes)
    for size in task.sizes:
        count, call = group.prepare(operation, size)
        group.barrier()
        first = group.time(call, 1)
        left = task.seconds - (time.monotonic() - began)
        if not group.broadcast(len(points) < _FEWEST_SIZES or first * _FEWEST_CALLS < left):
            break
        seconds = _time(group, call, share)
        points.append(CommPoint(count, seconds / 2 if operation == "send_recv" else seconds))
    return points


def _time(group: Group, call: Call, budget_s: float) -> float:
    """Median over blocks of calls of the seconds that one takes."""
    group.time(call, _WARM_UP)
    once = group.time(call, _TRIAL)
    calls = group.broadcast(min(max(round(_BLOCK_S / once), 1), _MOST_CALLS))
    began, times = time.monotonic(), list[float]()
    while group.broadcast(not times or (len(times) < _MOST_BLOCKS and time.monotonic() - began < budget_s)):
        group.barrier()
        times += [group.time(call, calls) for _ in range(_FEWEST_BLOCKS)]
    return median(times)


if __name__ == "__main__":
    accept_any_text()
    exit_at_once(main(sys.argv[1:]))
