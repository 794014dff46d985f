"""What a decode step takes where another program wants the same CPUs, by how long OpenMP's threads look for each other.

    python -m benchmarks.engine.shared_cpus MODEL

Batch 1 and context 128, on all CPUs; the other program multiplies matrices on all of them. Medians and worst of five
processes, A B A B. It matters where the kernel puts threads: two of one engine on one CPU wait for each other.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from slurminfer.quant.models import resolve

from .. import GIVEN

SPINS = ("300000", "2000", "0")  # GCC's default, ours, none
ROUNDS, SECONDS, START_S = 5, 3.0, 5.0
BUSY = "import torch\na = torch.randn(1500, 1500)\nwhile True: a @ a"


def measure(model: Path) -> float:
    """Median seconds of a step, in this process."""
    from slurminfer.nodes.native.model.loading import load_model
    from slurminfer.nodes.native.model.step import Chunk
    from slurminfer.nodes.native.options import EngineOptions

    runner = load_model(EngineOptions(model=model, kv_cache_gib=0.5, context_length=2048))
    chunks = [Chunk([5], 128, list(range(9)), 1)]
    seconds: list[float] = []
    runner.forward(chunks)
    started = time.perf_counter()
    while time.perf_counter() - started < SECONDS or len(seconds) < 3:
        began = time.perf_counter()
        runner.forward(chunks)
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)


def step_s(model: Path, spin: str) -> float:
    """Median seconds of a step in a process of its own, whose OpenMP threads spin so often."""
    argv = [sys.executable, "-m", "benchmarks.engine.shared_cpus", str(model), "--one"]
    done = subprocess.run(
        argv, env={**os.environ, "GOMP_SPINCOUNT": spin}, check=True, capture_output=True, encoding="utf-8"
    )
    return float(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    model = resolve(args.model)
    if args.one:
        print(measure(model))
        return
    alone: dict[str, list[float]] = {spin: [] for spin in SPINS}
    beside: dict[str, list[float]] = {spin: [] for spin in SPINS}
    for _ in range(ROUNDS):
        for spin in SPINS:
            alone[spin].append(step_s(model, spin))
        with subprocess.Popen([sys.executable, "-c", BUSY], env=GIVEN) as other:
            try:
                time.sleep(START_S)
                for spin in SPINS:
                    beside[spin].append(step_s(model, spin))
            finally:
                other.kill()
    table = Table("GOMP_SPINCOUNT", "ms a step, alone", "beside another program")
    for spin in SPINS:
        both = (found[spin] for found in (alone, beside))
        table.add_row(spin, *(f"{1000 * statistics.median(all):.1f} ({1000 * max(all):.1f})" for all in both))
    Console().print(table)


if __name__ == "__main__":
    main()
