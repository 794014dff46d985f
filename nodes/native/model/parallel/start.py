"""The engine of several processes: one for each rank, of which a node's first starts the others as children."""

import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from .....core.errors import EngineError
from .....core.machine.cpus import allowed_cpus, parse_cpu_list
from .....core.machine.memory_policy import prefer_own_memory
from .....core.machine.numa import divide_cpus
from .....core.machine.pytorch import import_pytorch
from .....core.net.address import interface_env
from .....core.net.sockets import hold_port
from .....core.processes.process import describe_exit, die_with_parent
from .....core.processes.python import module_argv
from .....quant.checkpoint.config import read_config
from ...options import EngineOptions, ParallelOptions, ServerOptions
from ...service import core_of, serve
from .rendezvous.inherited import make_memory, make_secret
from .rendezvous.messages import ChildExits, Gone
from .shard import make_shard

if TYPE_CHECKING:
    from ...engine.core import EngineCore

_OnFailure = Callable[[EngineError], None]
_LOOPBACK = "127.0.0.1"
_NEWS_S = 2.0  # in which rank 0 ends this process, if it has a lifeline to hear of a child's death by


def run(words: Sequence[str], options: EngineOptions, parallel: ParallelOptions, server: ServerOptions) -> None:
    """Be one rank of several until the engine ends; `words` are this process's command line.

    Raises SlurminferErrors, at rank 0 those of another rank too; UsageError where several nodes have no secret.
    """
    make_secret(parallel)
    if parallel.rendezvous is not None:
        os.environ.update(interface_env(_own_address(parallel.rendezvous)))
        _take_part(words, options, parallel, server)
        return
    os.environ.update(interface_env(_LOOPBACK))  # a node's name may resolve to an address that it does not have
    with hold_port(_LOOPBACK) as held:
        rendezvous = f"{_LOOPBACK}:{held.getsockname()[1]}"
        _take_part(words, options, replace(parallel, rendezvous=rendezvous), server)


def _take_part(words: Sequence[str], options: EngineOptions, parallel: ParallelOptions, server: ServerOptions) -> None:
    allowed = os.sched_getaffinity(0)
    options = _settled(options, parallel)
    if parallel.rank:
        _follow(words, options, parallel, allowed)
        return

    def begin(on_failure: _OnFailure) -> "Callable[[], EngineCore]":
        _check_layout(options, parallel)
        child_exits = _start_others(words, parallel, allowed, on_failure)
        return lambda: _load(options, parallel, child_exits, on_failure)

    serve(options, server, begin)


def _load(
    options: EngineOptions, parallel: ParallelOptions, child_exits: ChildExits, on_failure: _OnFailure
) -> "EngineCore":
    import_pytorch()
    from .parallel_model import load_leader

    return core_of(load_leader(options, parallel, child_exits, on_failure), options)


def _follow(words: Sequence[str], options: EngineOptions, parallel: ParallelOptions, allowed: set[int]) -> None:
    """Rank 0 is the one to be told to end: it has requests to finish, and sends the others home."""
    _check_layout(options, parallel)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    child_exits: ChildExits = queue.SimpleQueue()
    if parallel.local_rank:
        die_with_parent()
    else:
        child_exits = _start_others(words, parallel, allowed, _end)
    import_pytorch()
    from .parallel_model import run_follower

    run_follower(options, parallel, child_exits)


def _check_layout(options: EngineOptions, parallel: ParallelOptions) -> None:
    """Refuse a model that cannot be cut so before the other ranks are started, which takes each of them seconds."""
    make_shard(read_config(options.model), parallel.tensor_parallel, parallel.pipeline_parallel, 0)


def _settled(options: EngineOptions, parallel: ParallelOptions) -> EngineOptions:
    """Keep this rank, and all threads that it will have, to its share of the node's cores and the memory beside them.

    With fewer cores than ranks they share all of them, and have one thread each.
    """
    mine = _shares(parallel)
    if mine is not None:
        os.sched_setaffinity(0, mine[parallel.local_rank])
        if trouble := prefer_own_memory():
            print(trouble, file=sys.stderr, flush=True)
    threads = options.threads or (allowed_cpus().cores if mine is None else None)
    return replace(options, threads=max(threads // parallel.ranks_here, 1) if threads else None)


def _shares(parallel: ParallelOptions) -> Sequence[frozenset[int]] | None:
    """The CPUs of each rank here; None where all share all of them."""
    if parallel.rank_cpus is None:
        return divide_cpus(parallel.ranks_here)
    return [parse_cpu_list(cpus) for cpus in parallel.rank_cpus.split("|")]


def _start_others(
    words: Sequence[str], parallel: ParallelOptions, allowed: set[int], on_failure: _OnFailure
) -> ChildExits:
    """Start this node's other ranks on the `allowed` CPUs; the returned queue gets each that ends in failure.

    `on_failure` is called a little later.
    """
    child_exits: ChildExits = queue.SimpleQueue()
    children, mine, memory = [], os.sched_getaffinity(0), make_memory()
    os.sched_setaffinity(0, allowed)  # which children inherit, from this thread
    for local_rank in range(1, parallel.ranks_here):
        own = ["--local-rank", str(local_rank), "--rendezvous", str(parallel.rendezvous)]
        argv = module_argv("slurminfer.nodes.native", *words, *own)
        children.append(subprocess.Popen(argv, pass_fds=(memory,)))
    os.sched_setaffinity(0, mine)
    for rank, child in enumerate(children, parallel.rank + 1):
        threading.Thread(
            target=_watch, args=(child, rank, child_exits, on_failure), name=f"rank {rank}", daemon=True
        ).start()
    return child_exits


def _watch(child: "subprocess.Popen[bytes]", rank: int, child_exits: ChildExits, on_failure: _OnFailure) -> None:
    status = child.wait()
    if status:
        gone = Gone(rank, socket.gethostname(), describe_exit(status))
        child_exits.put(gone)
        time.sleep(_NEWS_S)
        on_failure(EngineError(str(gone)))


def _own_address(rendezvous: str) -> str:
    """The address of this node on the network of the rendezvous, for gloo and NCCL; no packet is sent."""
    host, _, port = rendezvous.rpartition(":")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((host, int(port)))
        except OSError as error:
            raise EngineError(f"no way to the rendezvous {rendezvous}: {error}") from error
        address: str = probe.getsockname()[0]
        return address


def _end(error: EngineError) -> None:
    print(f"error: {error}", file=sys.stderr, flush=True)
    os._exit(1)
