"""An engine on GPUs, started by our agent, behind our router against straight to it; and a worker killed under load.

    python -m benchmarks.gpu MODEL --engine sglang [--tensor-parallel 2] [--workers 2 --kill] [-- ENGINE'S ARGUMENTS]

`slurminfer serve --local` on a machine with GPUs, one or more of them for each worker; with --slurm, jobs of the Slurm
that SLURM_CONF names. Streams of random prompts of their own ask for tokens greedily, in turns straight (a Unix
socket), through the router, and through the gate that an engine has towards a router on another node. --batches,
--requests and --spread may list several: each is measured with each. With --kill, the engine of the first worker is
killed (SIGKILL) under load. Prints the record that it writes to --out.
"""

import argparse
import itertools
import json
import os
import signal
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .deployment import Deployment
from .load import ClosedLoopLoad, duration, run, speed

_PROCESSES = 8
WAYS = ("straight", "routed", "gate")


def compare(
    deployment: Deployment, batch: int, requests: int, spread_s: float, given: argparse.Namespace
) -> dict[str, Any]:
    """All ways in turns, the order changing: tokens per second, and time to first token."""
    found: dict[str, list[float]] = {way: [] for way in WAYS}
    first: dict[str, list[float]] = {way: [] for way in WAYS}
    busy = []  # of one core, where the router is on this machine
    for number in range(len(WAYS) * given.rounds):
        way = WAYS[(number + number // len(WAYS)) % len(WAYS)]
        endpoint = deployment.endpoint(way)
        seed = 1000 * batch + number
        load = ClosedLoopLoad(batch, requests, given.prompt, given.tokens, seed=seed, spread_s=spread_s)
        before = 0.0 if given.slurm else deployment.router_cpu_s()
        answers = run(endpoint, load, min(batch, _PROCESSES))
        failed = [answer.error for answer in answers if answer.error]
        if failed:
            raise SystemExit(f"{len(failed)} of {len(answers)} requests failed: {failed[0]}")
        found[way].append(speed(answers))
        first[way].append(statistics.median(a.first - a.began for a in answers if a.first is not None))
        if way == "routed" and not given.slurm:
            busy.append((deployment.router_cpu_s() - before) / duration(answers))
    medians = {way: statistics.median(values) for way, values in found.items()}
    return {
        "batch": batch,
        "requests": requests,
        "spread_s": spread_s,
        "tokens_per_s": medians,
        "runs": found,
        "first_token_s": {way: statistics.median(values) for way, values in first.items()},
        "router_busy": statistics.median(busy) if busy else None,
        "vs_straight": {way: medians[way] / medians["straight"] for way in WAYS},
    }


def kill(deployment: Deployment, batch: int, seconds: float, given: argparse.Namespace) -> dict[str, Any]:
    """SIGKILL to the first worker's engine in the middle of a load through the router."""
    victim = deployment.workers()[0]
    until, at = time.time() + seconds, time.time() + seconds / 3
    threading.Timer(at - time.time(), os.kill, (victim.pid, signal.SIGKILL)).start()
    answers = run(
        deployment.endpoint("routed"), ClosedLoopLoad(batch, 10**6, given.prompt, given.tokens, 7, until), _PROCESSES
    )
    died = [record for record in deployment.run.read_workers() if record.id == victim.id]
    before = [a for a in answers if a.ended < at]
    after = [a for a in answers if a.began > at and a.ended <= until]
    return {
        "streams": batch,
        "killed": victim.id,
        "record_afterwards": f"{died[0].state}: {died[0].reason}" if died else "none",
        "requests": len(answers),
        "answered_whole": sum(not a.error for a in answers),
        "broken_streams": sum(bool(a.error) and a.first is not None for a in answers),
        "refused": sum(bool(a.error) and a.first is None for a in answers),
        "errors": sorted({a.error for a in answers if a.error})[:3],
        "begun_after_the_kill": sum(a.began > at for a in answers),
        "of_these_failed": sum(a.began > at and bool(a.error) for a in answers),
        "tokens_per_s_before": speed(before) if before else None,
        "tokens_per_s_after": speed(after) if after else None,
    }


def _several(kind: Callable[[str], Any]) -> Callable[[str], list[Any]]:
    """Takes a list with commas."""
    return lambda text: [kind(word) for word in text.split(",")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--engine", choices=("native", "sglang", "vllm"), default="sglang")
    for layout in ("--tensor-parallel", "--sequence-parallel", "--pipeline-parallel"):
        parser.add_argument(layout, type=int, default=1)
    parser.add_argument("--slurm", action="store_true", help="workers are jobs")
    parser.add_argument("--nodes", type=int, default=1, help="of each worker; the GPUs are shared out among them")
    parser.add_argument("--quantization", help="as in [model] of a spec")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--batches", type=_several(int), default=[1, 64, 256], help="streams at the same time")
    parser.add_argument("--requests", type=_several(int), default=[2], help="of each stream, one after the other")
    parser.add_argument("--spread", type=_several(float), default=[0.0], help="seconds over which streams begin")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--prompt", type=int, default=128, help="tokens of each")
    parser.add_argument("--tokens", type=int, default=256, help="of each answer")
    parser.add_argument("--context", type=int, default=8192, help="the model's context_length")
    parser.add_argument("--kill", action="store_true")
    parser.add_argument("--out", type=Path)
    at = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    given = parser.parse_args(sys.argv[1:at], argparse.Namespace(extra=sys.argv[at + 1 :], running=256))
    if given.nodes > 1 and not given.slurm:
        parser.error("--nodes: a worker of several nodes is a job; add --slurm")
    if given.kill and given.slurm:
        parser.error("--kill: only local workers have their process on this machine")
    with tempfile.TemporaryDirectory() as folder:
        deployment = Deployment(given, Path(folder))
        try:
            ready_s = deployment.start()
            record: dict[str, Any] = {
                "command": " ".join(sys.argv[1:]),
                "ready_s": round(ready_s, 1),
                "workers": [{"id": w.id, "engine": w.engine, "load_s": w.load_s} for w in deployment.workers()],
            }
            warm = ClosedLoopLoad(min(64, max(given.batches)), 1, given.prompt, 64, 5)
            for way in WAYS:
                run(deployment.endpoint(way), warm, _PROCESSES)
            loads = itertools.product(given.batches, given.requests, given.spread)
            record["speeds"] = [compare(deployment, *load, given) for load in loads]
            if given.kill:
                record["kill"] = kill(deployment, 64, 30.0, given)
        finally:
            deployment.stop()
    text = json.dumps(record, indent=1)
    print(text)
    if given.out:
        given.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
