"""Ranks as processes that are forked from one that has imported torch: starting one takes milliseconds, not seconds."""

import os
import secrets
import sys
import traceback
from collections.abc import Callable, Sequence
from multiprocessing.reduction import DupFd
from pathlib import Path
from typing import Any

from slurminfer.nodes.native.model.parallel.rendezvous.inherited import MEMORY_VARIABLE, make_memory
from slurminfer.nodes.native.options import RANK_SECRET_VARIABLE

from ....support.forking import CONTEXT

TIMEOUT_S = 120


def run_ranks(
    main: Callable[[Sequence[str]], None],
    argvs: Sequence[Sequence[str]],
    folder: Path,
    cpus: Sequence[int] = (),
    nodes: int = 1,
) -> list[str]:
    """Run `main` with each argv in a process of its own, on these CPUs only if some are given; all must exit with 0.

    Each of `nodes` has as many, which share memory. `folder` takes their standard errors, which are returned.
    """
    said = [folder / f"stderr-{index}" for index in range(len(argvs))]
    secret, files = secrets.token_hex(), [make_memory({}) for _ in range(nodes)]
    ranks = []
    for index, (argv, path) in enumerate(zip(argvs, said, strict=True)):
        work = (main, argv, path, cpus, secret, DupFd(files[index * nodes // len(argvs)]))
        ranks.append(CONTEXT.Process(target=_run, args=work, daemon=True))
    try:
        for rank in ranks:
            rank.start()
        for rank in ranks:
            rank.join(TIMEOUT_S)
        found = [path.read_text() for path in said]
        assert [rank.exitcode for rank in ranks] == [0] * len(ranks), "\n".join(found)
        return found
    finally:
        for file in files:
            os.close(file)
        for rank in ranks:
            rank.kill()
            rank.join()
            rank.close()


def _run(
    main: Callable[[Sequence[str]], None],
    argv: Sequence[str],
    said: Path,
    cpus: Sequence[int],
    secret: str,
    memory: Any,
) -> None:
    os.environ.update({RANK_SECRET_VARIABLE: secret, MEMORY_VARIABLE: str(memory.detach())})
    with said.open("w", encoding="utf-8") as file:
        os.dup2(file.fileno(), 2)
    if cpus:
        os.sched_setaffinity(0, cpus)
    try:
        main(argv)
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)
    sys.stderr.flush()
    os._exit(0)  # gloo's threads may not end well
