"""A stream alone, then beside each kind of tenant, of our server and of vLLM's."""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from .servers import ours, vllm
from .tenants import TENANTS

ROOT = Path(__file__).parents[3]
_VLLM = ROOT / ".venv-vllm/bin/python"
_HEAD_START_S = 1.0  # that a tenant has


def measure(model: Path, quick: bool) -> dict[str, Any]:
    """The stream's gaps and its time to the first token, in milliseconds, and ours as a part of vLLM's."""
    seconds = 5.0 if quick else 10.0
    sides: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory(prefix="slurminfer-fairness-") as folder:
        with ours(model, Path(folder) / "ours.log") as url:
            sides["ours"] = watch(url, seconds)
        if _VLLM.exists() and not quick:
            with vllm(str(_VLLM), model, Path(folder) / "vllm.log") as url:
                sides["vllm"] = watch(url, seconds)
    return compared(sides)


def compared(sides: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The sides with our worst gap and, beside the same tenants, our figures as parts of vLLM's."""
    found: dict[str, Any] = {**sides, "worst_gap_ms": max(each["worst_gap_ms"] for each in sides["ours"].values())}
    if "vllm" in sides:
        found["of_vllm"] = {
            name: {key: value / sides["vllm"][name][key] for key, value in figures.items()}
            for name, figures in sides["ours"].items()
            if name in sides["vllm"]
        }
    return found


def watch(url: str, seconds: float) -> dict[str, dict[str, float]]:
    """The stream's figures by the tenant beside it, without those that the server refuses."""
    _stream(url, min(seconds, 5.0))  # warms up
    found = {"alone": _figures(_stream(url, seconds))}
    for name in TENANTS:
        with ExitStack() as stack:
            argv = [sys.executable, "-m", "benchmarks.api.fairness.tenants", url, name]
            tenant = subprocess.Popen(argv, cwd=ROOT, stderr=subprocess.DEVNULL)
            stack.callback(tenant.wait)
            stack.callback(tenant.kill)
            time.sleep(_HEAD_START_S)
            stream = _stream(url, seconds)
            refused = tenant.poll() is not None
        if not refused:
            found[name] = _figures(stream)
            print(name, found[name], file=sys.stderr, flush=True)
        time.sleep(_HEAD_START_S)  # what the tenant had asked for is given up
    return found


def _stream(url: str, seconds: float) -> dict[str, list[float]]:
    argv = [sys.executable, "-m", "benchmarks.api.fairness.victim", url, str(seconds)]
    answer: dict[str, list[float]] = json.loads(subprocess.run(argv, cwd=ROOT, check=True, capture_output=True).stdout)
    return answer


def _figures(stream: dict[str, list[float]]) -> dict[str, float]:
    first, gaps = stream["first_s"], stream["gaps_s"]
    return {
        "median_gap_ms": 1000 * statistics.median(gaps or first),
        "worst_gap_ms": 1000 * max(gaps or first),
        "median_first_ms": 1000 * statistics.median(first),
        "worst_first_ms": 1000 * max(first),
    }
