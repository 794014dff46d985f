"""How two ranks communicate: what predictions rest on, beside the memory bandwidth.

Run as a program it is one of two ranks, over gloo or the memory that they share:

    python -m benchmarks.parallel.links RENDEZVOUS sums|messages RANK
"""

import json
import os
import queue
import secrets
import subprocess
import sys
import time
from statistics import median
from typing import Any

import msgspec
import torch

from slurminfer.core.net.sockets import hold_port
from slurminfer.core.site.communication import CommPoint, CommProfile
from slurminfer.jobs.bench.comm.fit import fit
from slurminfer.nodes.native.model.parallel.ranks import Ranks
from slurminfer.nodes.native.model.parallel.rendezvous.failure_detector import FailureDetector
from slurminfer.nodes.native.model.parallel.rendezvous.inherited import make_memory, rank_secret
from slurminfer.nodes.native.model.parallel.rendezvous.key_table import Ask
from slurminfer.nodes.native.model.parallel.rendezvous.lifeline import Lifeline
from slurminfer.nodes.native.options import RANK_SECRET_VARIABLE, ParallelOptions

from .. import GIVEN
from .prediction import Link

_LOOPBACK = "127.0.0.1"
_SIZES = [1 << power for power in range(10, 20)]  # bytes
_CALLS, _BLOCKS = 50, 15


def shared_memory() -> Link:
    """All-reduce and message of two ranks of this machine, each with CPUs of its own."""
    sums = [CommPoint(size, seconds) for size, seconds in _measured("sums")]
    messages = [CommPoint(size, seconds) for size, seconds in _measured("messages")]
    return Link(fit("all_reduce", 2, sums), fit("send_recv", 2, messages))


def gloo(*where: str) -> Link:
    """All-reduce and message of two ranks over gloo, by `slurminfer bench comm`, which keeps it in the site profile."""
    argv = [sys.executable, "-m", "slurminfer", "bench", "comm", *where, "--backend=gloo", "--seconds=2", "--json"]
    sizes = ",".join(map(str, _SIZES))
    said = subprocess.run([*argv, "--sizes", sizes], env=GIVEN, check=True, stdout=subprocess.PIPE).stdout
    fits = {found.operation: found for found in msgspec.json.decode(said, type=CommProfile).operations}
    return Link(fits["all_reduce"], fits["send_recv"])


def _measured(what: str) -> list[tuple[int, float]]:
    """Bytes and seconds, as rank 0 has found them."""
    with hold_port(_LOOPBACK) as held:
        rendezvous = f"{_LOOPBACK}:{held.getsockname()[1]}"
        argv = [sys.executable, "-m", "benchmarks.parallel.links", rendezvous, what]
        env = GIVEN | {"GLOO_SOCKET_IFNAME": "lo", RANK_SECRET_VARIABLE: secrets.token_hex(32)}
        options: dict[str, Any] = {"env": env, "pass_fds": (make_memory(env),), "stdout": subprocess.PIPE}
        first, second = (subprocess.Popen([*argv, f"{n}"], encoding="utf-8", **options) for n in (0, 1))
        said = first.communicate()[0]
        if second.wait() or first.returncode:
            raise SystemExit(f"the ranks that measure {what} have failed")
    found: list[tuple[int, float]] = json.loads(said)
    return found


def main(rendezvous: str, what: str, rank: int) -> None:
    """Be one of the two ranks; rank 0 prints bytes and seconds as JSON."""
    cpus = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cpus[rank % len(cpus)]})
    torch.set_num_threads(1)
    kind: dict[str, Any] = {"tensor_parallel": 2} if what == "sums" else {"pipeline_parallel": 2}
    place = ParallelOptions(**kind, local_rank=rank, rendezvous=rendezvous)
    ranks = Ranks(place, torch.device("cpu"), 1, _table(rendezvous, rank))
    timed = _sum if what == "sums" else _message
    found = [(size, timed(ranks, torch.zeros(1, size // 4))) for size in _SIZES]
    ranks.all_reduce_min(0)
    if rank == 0:
        print(json.dumps(found), flush=True)
    os._exit(0)  # gloo's threads may not end well


def _table(rendezvous: str, rank: int) -> Ask:
    if rank:
        return Lifeline(rendezvous, rank, rank_secret(), queue.SimpleQueue()).ask
    return FailureDetector(rendezvous, 1, rank_secret(), queue.SimpleQueue(), lambda error: None).ask


def _sum(ranks: Ranks, x: torch.Tensor) -> float:
    """Seconds of one, as the engine's counter has them."""
    found = []
    for _ in range(_BLOCKS):
        before = ranks.seconds
        for _ in range(_CALLS):
            ranks.all_reduce(x)
        found.append((ranks.seconds - before) / _CALLS)
    return median(found)


def _message(ranks: Ranks, x: torch.Tensor) -> float:
    """Seconds one way, of messages that go there and back."""
    found, (rows, width) = [], x.shape
    for _ in range(_BLOCKS):
        began = time.perf_counter()
        for _ in range(_CALLS):
            if ranks.place.rank == 0:
                ranks.send_to_next_stage(x)
                ranks.wait_logits(ranks.irecv_logits(rows, [width]))
            else:
                ranks.gather_logits(ranks.recv_from_previous_stage(rows, width, x.dtype), [width])
        found.append((time.perf_counter() - began) / _CALLS / 2)
    return median(found)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
