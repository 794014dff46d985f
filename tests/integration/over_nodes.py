"""One model over several nodes of a real Slurm: what a user asks of it, and what he is told when it breaks."""

from collections.abc import Callable, Mapping
from pathlib import Path

import psutil

from .conftest import User
from .deployments import PROMPTS, complete, reason_of_failure, serve, texts

_SHORT_AND_LONG = [PROMPTS[0], PROMPTS[-1]]  # the second is one that two sequence ranks must share
LAYOUTS = {  # and GiB of each rank's KV cache: 0.013 hold 303 tokens, less than the last prompt has
    "tensor_parallel = 2": 0.3,
    "pipeline_parallel = 2": 0.3,
    "sequence_parallel = 2": 0.013,
}


def check_native(
    user: User,
    shared: Path,
    pool: Callable[[int, str, float], str],
    layouts: Mapping[str, float] = LAYOUTS,
    model: str | Path = "demo",
) -> list[str]:
    """Two nodes must say what one says, and a killed rank end the job with its name; what they say.

    Args:
        user: who serves the model.
        shared: a folder for specs.
        pool: makes a pool's lines of the number of nodes, the layout, and the GiB of a rank's KV cache.
        layouts: those of two ranks, with the GiB of a rank's KV cache, which for sequence ranks is too little for one.
        model: as in the spec.
    """
    serve(user, shared, "alone", pool(1, "", 0.3), model=model)
    alone = answers(user, "alone")
    user.ok("stop", "alone")
    *_, last = layouts
    for layout, kv_cache_gib in layouts.items():
        serve(user, shared, "two", pool(2, layout, kv_cache_gib), model=model)
        assert answers(user, "two") == alone
        found = ranks(user.home)
        assert len(found) == 2
        if layout != last:
            user.ok("stop", "two")
            assert ranks(user.home) == []
    worker = user.status("two")["workers"][0]["id"]
    next(process for process in found if value(process, "--node-rank") == "1").kill()
    assert "rank 1 on n" in reason_of_failure(user, "two", worker)
    assert not any(process.is_running() for process in found)  # the worker that takes its place may have begun
    user.ok("stop", "two")
    return alone


def answers(user: User, name: str) -> list[str]:
    """What a deployment says to a short prompt and to a long one."""
    return texts(complete(user, name, _SHORT_AND_LONG))


def ranks(home: Path) -> list[psutil.Process]:
    """The native engine's, of all nodes: those of the sandbox are on this machine."""
    return [process for process in psutil.process_iter() if _is_rank(process, str(home))]


def value(process: psutil.Process, flag: str) -> str:
    """Of a command line's flag; empty if it is not there."""
    words = process.cmdline()
    return words[words.index(flag) + 1] if flag in words else ""


def _is_rank(process: psutil.Process, home: str) -> bool:
    try:
        words = process.cmdline()
        return {"slurminfer.nodes.native", "--node-rank"} <= set(words) and process.environ()["SLURMINFER_HOME"] == home
    except (psutil.Error, KeyError):
        return False
