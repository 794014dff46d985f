"""The engine of several processes: one for each rank, of which a node's first starts the others as children."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from ....core.cpus import allowed_cpus, divide_cpus
from ....core.errors import EngineError
from ....core.process import die_with_parent
from ...place import hold_port, interface_env
from ..options import EngineOptions, ParallelOptions, ServerOptions
from ..service import core_of, serve

if TYPE_CHECKING:
    from ..engine_core import EngineCore

_OnLoss = Callable[[EngineError], None]
_LOOPBACK = "127.0.0.1"
_NEWS_S = 2.0  # in which a rank's lifeline may have told better why it is gone


def run(words: Sequence[str], options: EngineOptions, parallel: ParallelOptions, server: ServerOptions) -> None:
    """Be one rank of several until the engine ends; `words` are this process's command line.

    Raises SlurminferErrors, at rank 0 those of another rank too.
    """
    if parallel.rendezvous is not None:
        _take_part(words, options, parallel, server)
        return
    os.environ.update(interface_env(_LOOPBACK))  # a node's name may resolve to an address that it does not have
    with hold_port(_LOOPBACK) as held:
        rendezvous = f"{_LOOPBACK}:{held.getsockname()[1]}"
        _take_part(words, options, replace(parallel, rendezvous=rendezvous), server)


def _take_part(words: Sequence[str], options: EngineOptions, parallel: ParallelOptions, server: ServerOptions) -> None:
    options = _settled(options, parallel)
    if parallel.rank:
        _follow(words, options, parallel)
        return

    def begin(on_loss: _OnLoss) -> "Callable[[], EngineCore]":
        _start_others(words, parallel, on_loss)
        return lambda: _load(options, parallel, on_loss)

    serve(options, server, begin)


def _load(options: EngineOptions, parallel: ParallelOptions, on_loss: _OnLoss) -> "EngineCore":
    from .model import lead

    return core_of(lead(options, parallel, on_loss), options)


def _follow(words: Sequence[str], options: EngineOptions, parallel: ParallelOptions) -> None:
    """Rank 0 is the one to be told to end: it has requests to finish, and sends the others home."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    if parallel.local_rank:
        die_with_parent()
    else:
        _start_others(words, parallel, _end)
    from .model import follow

    follow(options, parallel)


def _settled(options: EngineOptions, parallel: ParallelOptions) -> EngineOptions:
    """Keep this rank, and all threads that it will have, to its share of the node's cores.

    With fewer cores than ranks they share all of them, and have one thread each.
    """
    mine = divide_cpus(parallel.ranks_here)
    if mine is not None:
        os.sched_setaffinity(0, mine[parallel.local_rank])
    threads = options.threads or (allowed_cpus().cores if mine is None else None)
    return replace(options, threads=max(threads // parallel.ranks_here, 1) if threads else None)


def _start_others(words: Sequence[str], parallel: ParallelOptions, on_loss: _OnLoss) -> None:
    """This node's other ranks. `on_loss` is called when one ends in failure."""
    for local_rank in range(1, parallel.ranks_here):
        own = ["--local-rank", str(local_rank), "--rendezvous", str(parallel.rendezvous)]
        child = subprocess.Popen([sys.executable, "-m", "slurminfer.nodes.native", *words, *own])
        rank = parallel.rank + local_rank
        threading.Thread(target=_watch, args=(child, rank, on_loss), name=f"rank {rank}", daemon=True).start()


def _watch(child: "subprocess.Popen[bytes]", rank: int, on_loss: _OnLoss) -> None:
    status = child.wait()
    if status:
        time.sleep(_NEWS_S)
        how = f"exit status {status}" if status > 0 else signal.Signals(-status).name
        on_loss(EngineError(f"rank {rank} on {socket.gethostname()} is gone: {how}"))


def _end(error: EngineError) -> None:
    print(f"error: {error}", file=sys.stderr, flush=True)
    os._exit(1)
