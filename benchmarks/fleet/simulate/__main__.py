"""A fleet over 30 simulated days: `decide` against fixed fleets and chained jobs, and the time that a look takes.

    python -m benchmarks.fleet.simulate [--days N] [--seed TEXT] [--strategy NAME] [--out FILE]

2,000 nodes with other people's jobs, first come, first served, with backfill; nodes that die, engines that crash or
hang, agents that fall silent, preemption, two maintenances; a controller that is killed once a day, cannot read a
fiftieth of its looks, and of whose actions one in a hundred is lost. It looks every 30 s. All strategies see the same
events. Without a router's job, whose hand-over the real Slurm shows (benchmarks.fleet). Ours has a backfill pool
besides, which is to cost the others nothing.

Writes benchmarks/results/fleet-sim.json. Exits with 1 where an invariant did not hold (invariants.py).
"""

import argparse
import sys
from pathlib import Path
from typing import Any

from slurminfer.core.files import encode_json, write_atomic

from ...machine import machine
from .baselines import Chain, Fixed
from .ours import Ours
from .simulation import Simulation
from .tick import measure
from .workers import Fleet

RESULTS = Path(__file__).parents[2] / "results/fleet-sim.json"
STRATEGIES: dict[str, type[Fleet]] = {"ours": Ours, "chain": Chain, "fixed": Fixed}
COLUMNS = ("enough", "some", "wait_p95_s", "wait_p99_s", "refused", "cut", "gpu_hours", "jobs")


def main() -> int:
    """Simulate, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--days", type=float, default=30.0)
    parser.add_argument("--seed", default="fleet")
    parser.add_argument("--strategy", action="append", choices=STRATEGIES, help="only this one; may be repeated")
    parser.add_argument("--workers", type=int, default=10_000, help="in the measurement of one look; 0: none")
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    found: dict[str, Any] = {"machine": machine(), "days": arguments.days, "seed": arguments.seed}
    for name in arguments.strategy or STRATEGIES:
        found[name] = Simulation(STRATEGIES[name], arguments.days, arguments.seed).run()
        _show(name, found[name])
    if arguments.workers:
        found["tick"] = measure(arguments.workers)
        print(f"\none look at {arguments.workers} workers: {found['tick']}")
    write_atomic(arguments.out, encode_json(found), mode=None)
    broken = found.get("ours", {}).get("invariants", {}).get("broken")
    return 1 if broken else 0


def _show(name: str, figures: dict[str, Any]) -> None:
    print(f"\n{name}: {figures['cpu_s']} s of CPU time; {figures.get('invariants', '')}")
    print(f"  {'':10}" + "".join(f"{column:>12}" for column in COLUMNS))
    for pool, row in figures["pools"].items():
        print(f"  {pool:10}" + "".join(f"{row[column]:>12}" for column in COLUMNS), flush=True)
    for pool, row in figures.get("harvest", {}).items():
        print(f"  {pool}: {row}; other people's jobs: {figures['others']}")
    for example in figures.get("examples", ()):
        print(f"  {example}")


if __name__ == "__main__":
    sys.exit(main())
