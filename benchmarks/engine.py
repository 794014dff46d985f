"""The native engine against transformers: same model, same prompts, each run in a process of its own, A B A B A B.

Prints a table and writes benchmarks/results/engine.json. transformers also runs once in the other dtypes, so that the
native engine is compared with the best that transformers can do on this machine, not only with the same dtype.
"""

import argparse
import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from slurminfer.core.files import write_atomic
from slurminfer.quant.models import resolve
from slurminfer.quant.numerics import native_dtype

ROOT = Path(__file__).parent
QUESTIONS = ROOT.parent / "examples" / "data" / "gsm8k-40.jsonl"
RESULTS = ROOT / "results" / "engine.json"
ENGINES = ("native", "transformers")
DTYPES = ("float32", "bfloat16", "float16")
MIB = 1 << 20


def run(engine: str, dtype: str, model: Path, text: Path, quick: bool = False) -> dict[str, Any]:
    """Measure in a fresh process.

    Adds `first_token_s`, counted from before the process starts, and `other_cpus`, how many CPUs of the machine were
    busy with something else meanwhile: timings count only where that is about 0.
    """
    argv = [sys.executable, str(ROOT / "engine_worker.py"), engine, dtype, str(model), str(text)]
    started, busy, own = time.time(), _busy_s(), os.times()
    done = subprocess.run(argv + ["--quick"] * quick, check=True, stdout=subprocess.PIPE, text=True)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    result["first_token_s"] = result.pop("first_token_at") - started
    now = os.times()
    own_s = sum(now[:4]) - sum(own[:4])  # of this process and of its children that have ended
    result["other_cpus"] = max(_busy_s() - busy - own_s, 0.0) / (time.time() - started)
    return {"engine": engine, "dtype": dtype, "quick": quick} | result


def _busy_s() -> float:
    """CPU seconds of the whole machine since it started, without idling and waiting for disks."""
    user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, Path("/proc/stat").read_text().split()[1:9])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def speeds(result: dict[str, Any]) -> dict[str, float]:
    """Tokens per second by what was measured; of hand-written loop and library's loop the faster one."""
    found = {
        f"decode, batch {batch}": max(speed, result["generate"].get(batch, 0.0))
        for batch, speed in result["decode"].items()
    }
    return found | ({f"prefill, {result['prefill_tokens']} tokens": result["prefill"]} if "prefill" in result else {})


def summarize(runs: list[dict[str, Any]], dtype: str) -> dict[str, dict[str, float]]:
    """For each measurement the medians of both engines in `dtype`, transformers' best dtype, and the ratios."""
    same = {e: [speeds(r) for r in runs if (r["engine"], r["dtype"]) == (e, dtype)] for e in ENGINES}
    others = [speeds(r) for r in runs if r["quick"]]
    rows = {}
    for name in same["native"][0]:
        native, reference = (statistics.median(s[name] for s in same[e]) for e in ENGINES)
        best = max([reference, *(s[name] for s in others if name in s)])
        rows[name] = {
            "native": native,
            "transformers": reference,
            "transformers_best_dtype": best,
            "ratio": native / reference,
            "ratio_to_best_dtype": native / best,
        }
    return rows


def overheads(runs: list[dict[str, Any]], dtype: str) -> dict[str, dict[str, float]]:
    """By engine: seconds to the first token, and MiB of memory beyond weights and KV in use."""
    same = {e: [r for r in runs if (r["engine"], r["dtype"]) == (e, dtype)] for e in ENGINES}
    weights = same["transformers"][0]["weight_bytes"]
    return {
        engine: {
            "first_token_s": statistics.median(r["first_token_s"] for r in found),
            "peak_rss_mib": max(r["peak_rss_bytes"] for r in found) / MIB,
            "beyond_weights_and_kv_mib": max(r["peak_rss_bytes"] - weights - r["kv_bytes"] for r in found) / MIB,
        }
        for engine, found in same.items()
    }


def machine() -> dict[str, Any]:
    info = Path("/proc/cpuinfo").read_text().splitlines()
    flags = next((line.split() for line in info if line.startswith("flags")), [])
    return {
        "cpu": next((line.split(":")[1].strip() for line in info if line.startswith("model name")), platform.machine()),
        "cpus": len(os.sched_getaffinity(0)),
        "features": [flag for flag in ("avx2", "avx512f", "avx512_bf16", "amx_tile", "amx_bf16") if flag in flags],
        "load_before": os.getloadavg()[0],
        "python": platform.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in ("torch", "transformers", "slurminfer")},
    }


def report(
    dtype: str, rows: dict[str, dict[str, float]], over: dict[str, dict[str, float]], same_tokens: bool, others: float
) -> None:
    columns = ("native", "transformers", "ratio", "transformers_best_dtype", "ratio_to_best_dtype")
    table = Table("tokens/s", *(name.replace("_", " ") for name in columns), title=f"native engine, {dtype}")
    for name, row in rows.items():
        table.add_row(name, *(f"{row[c]:.2f}x" if c.startswith("ratio") else f"{row[c]:.1f}" for c in columns))
    console = Console()
    console.print(table)
    for engine, values in over.items():
        console.print(
            f"{engine}: first token {values['first_token_s']:.1f} s after process start, peak memory "
            f"{values['peak_rss_mib']:.0f} MiB, of it {values['beyond_weights_and_kv_mib']:.0f} beyond weights and KV"
        )
    console.print(f"CPUs busy with other work, in the worst run: {others:.2f}; above 0.1 repeat on an idle machine")
    console.print(f"greedy tokens at batch 1 are {'the same' if same_tokens else 'NOT the same'}; see {RESULTS}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--dtype", default=str(native_dtype(torch.device("cpu"))).removeprefix("torch."))
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    model, state = resolve(args.model), machine()
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as text:
        text.write(
            "\n\n".join(json.loads(line)["messages"][0]["content"] for line in QUESTIONS.read_text().splitlines())
        )
        text.flush()
        path = Path(text.name)
        runs = [run(engine, args.dtype, model, path) for _ in range(args.rounds) for engine in ENGINES]
        runs += [run("transformers", dtype, model, path, quick=True) for dtype in DTYPES if dtype != args.dtype]
    rows, over = summarize(runs, args.dtype), overheads(runs, args.dtype)
    same_tokens = len({tuple(r["tokens"]) for r in runs if r["dtype"] == args.dtype}) == 1
    report(args.dtype, rows, over, same_tokens, max(r["other_cpus"] for r in runs))
    record = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "model": str(args.model),
        "dtype": args.dtype,
        "machine": state,
        "ratios": rows,
        "overheads": over,
        "same_tokens": same_tokens,
        "runs": runs,
    }
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(RESULTS, json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
