"""What our router does beside sglang-router, smg, vllm-router and nginx, all in one run and in turns.

    python -m benchmarks.router [--part requests --rounds 1 --seconds 1] [--router slurminfer smg]

Parts:
- requests: requests/s at 1, 32 and 256 connections, the time that a router adds to a request, events/s of 256 streams
  (the next event is made when all streams have the one before the last), and CPU time of the router's processes for a
  request and for an event at an engine's pace (11,520 events/s). Workers take no time.
- sharing: prompts that share prefixes, before workers with bounded prefix caches.
- chaos: streams while workers are killed, frozen and answer nonsense, and our relays are killed.
- memory: 14,400 long documents, all different.
- public: failures of routers that have been reported in public.
- native: two workers of our own engine: shared prefixes, and chaos in float32.

Ours has two relays, an API key, and every feature on; the compiled routers have their key, policy cache_aware and else
what their projects set. Prints tables and writes benchmarks/results/router.json, with `ratios`.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from ..machine import machine
from . import chaos, memory, native, public, report, sharing, throughput
from .ours import before, ours
from .routers import available, peer_command
from .targets import BEFORE, CEILING, GATED, OURS, PEERS, STRAIGHT, Starter

RESULT = Path(__file__).parents[1] / "results/router.json"
PARTS = ("requests", "sharing", "chaos", "memory", "public", "native")
LEAST_LOAD = f"{OURS}, least_load"


def only(starters: dict[str, Starter], *without: str) -> dict[str, Starter]:
    """All but these."""
    return {name: start for name, start in starters.items() if name not in without}


def measure(given: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """The figures of each part that is asked for."""
    starters = available(given.router)
    if given.before:
        starters[BEFORE] = before(given.before)
    proxies = only(starters, STRAIGHT)
    judged = only(proxies, CEILING)
    sharers = judged | ({LEAST_LOAD: partial(ours, policy="least_load")} if OURS in judged else {})
    parts: dict[str, Callable[[], Any]] = {
        "requests": lambda: throughput.run(folder, starters, given.rounds, given.seconds),
        "sharing": lambda: sharing.run(folder, sharers, given.load, given.rate_seconds),
        "chaos": lambda: chaos.run(folder, judged, given.chaos_seconds, given.kill_every),
        "memory": lambda: memory.run(folder, judged, given.documents),
        "public": lambda: public.run(folder, judged),
        "native": lambda: native.run(folder, sharers, judged, given.native_seconds),
    }
    names = {"requests": "throughput"}
    return {names.get(part, part): parts[part]() for part in given.part}


def commands() -> dict[str, str]:
    """How the compiled routers are started."""
    root = str(RESULT.parents[2]) + "/"
    return {name: " ".join(peer_command(name, ["URL", "..."], 30000, 29000)).replace(root, "") for name in PEERS}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    everybody = [STRAIGHT, OURS, *PEERS, CEILING]
    parser.add_argument("--part", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--router", nargs="+", choices=[*everybody, GATED], default=everybody)
    parser.add_argument("--before", type=Path, metavar="CHECKOUT", help="measure the router of another checkout too")
    parser.add_argument("--rounds", type=int, default=5, help="of part requests; each router has a turn in each")
    parser.add_argument("--seconds", type=float, default=4.0, help="of a turn")
    parser.add_argument("--load", nargs="+", choices=sharing.LOADS, default=list(sharing.LOADS))
    parser.add_argument("--rate-seconds", type=float, default=20.0, help="at each rate of part sharing")
    parser.add_argument("--chaos-seconds", type=float, default=120.0)
    parser.add_argument("--kill-every", type=float, default=chaos.KILL_EVERY_S, help="seconds; of part chaos")
    parser.add_argument("--native-seconds", type=float, default=60.0)
    parser.add_argument("--documents", type=int, default=memory.DOCUMENTS, help="of part memory")
    parser.add_argument("--out", type=Path, default=RESULT, help="in place of benchmarks/results/router.json")
    given = parser.parse_args()
    began, about = time.monotonic(), machine()
    with tempfile.TemporaryDirectory() as folder:
        found = measure(given, Path(folder))
    judged = report.ratios(found)
    report.show(found, judged)
    record = {"machine": about, "minutes": (time.monotonic() - began) / 60, "ratios": judged, "peers": commands()}
    given.out.write_text(json.dumps(record | found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
