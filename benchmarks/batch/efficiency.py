"""A batch through router and worker, against the same engine in one process on the same prompts: A B A B A B A B.

The ratio is the median of those of the rounds: machines get faster and slower within minutes.

Both compute on all CPUs; the batch shares them with driver, router and the worker's HTTP server. Every answer has just
as many tokens. The time of the batch is that of the whole command, less that of a batch of one row (`start_s`): the
engine's own process is timed without its start either. `with_start` compares the whole command. Both compute with
compiled kernels from the first row on, where there are some for the dtype.
"""

import json
import statistics
import sys
from pathlib import Path
from typing import Any

from slurminfer.quant.models import resolve

from .commands import deployment, run, slurminfer
from .inputs import questions, read_lines, write_lines

TOKENS = 64
NAME = "efficiency"
SPEC = """
name = "{name}"
[model]
path = "{model}"
name = "m"
dtype = "{dtype}"
[[pool]]
name = "w"
cpus_per_task = {cpus}
extra_args = ["--context-length", "2048", "--kv-cache-gib", "1", "--kernels", "{kernels}"]
[router]
port = 0
"""


def measure(folder: Path, rows: int, rounds: int, dtype: str, cpus: int) -> dict[str, Any]:
    """Seconds and tokens/s of each run, and the ratio of their medians."""
    model = resolve("demo")
    fields = {"max_tokens": TOKENS, "temperature": 0, "ignore_eos": True}
    asked = [{"messages": [{"role": "user", "content": text}], **fields} for text in questions(rows)]
    path = write_lines(folder / "questions.jsonl", asked)
    one = write_lines(folder / "one.jsonl", [{**asked[0], "max_tokens": 1}])
    kernels = "auto" if dtype == "float32" else "compiled"
    spec = SPEC.format(name=NAME, model=model, dtype=dtype, cpus=cpus, kernels=kernels)
    runs: list[dict[str, float]] = []
    for number in range(rounds):
        direct = _direct(model, path, dtype, kernels)
        batch = _batch(folder, spec, path, one, number)
        if direct["completion_tokens"] != batch["completion_tokens"]:
            raise RuntimeError(f"{direct} and {batch}: expected as many tokens")
        runs.append({"direct_s": direct["seconds"], **batch, "prompt_tokens_direct": direct["prompt_tokens"]})
        print(f"efficiency: {runs[-1]}", file=sys.stderr)
    both = [(one["direct_s"], one["batch_s"] - one["start_s"]) for one in runs]
    return {
        "rows": rows,
        "dtype": dtype,
        "tokens_per_s": {
            "engine": statistics.median(rows * TOKENS / direct_s for direct_s, _ in both),
            "batch": statistics.median(rows * TOKENS / batch_s for _, batch_s in both),
        },
        "efficiency": statistics.median(direct_s / batch_s for direct_s, batch_s in both),
        "with_start": statistics.median(one["direct_s"] / one["batch_s"] for one in runs),
        "runs": runs,
    }


def _direct(model: Path, path: Path, dtype: str, kernels: str) -> dict[str, float]:
    options = [f"--dtype={dtype}", f"--kernels={kernels}"]
    argv = [sys.executable, "-m", "benchmarks.batch.direct", str(model), str(path), *options]
    found: dict[str, float] = json.loads(run(argv).said.splitlines()[-1])
    return found


def _batch(folder: Path, spec: str, path: Path, one: Path, number: int) -> dict[str, float]:
    with deployment(folder, NAME, spec) as env:
        start = run(slurminfer("batch", one, folder / f"one-{number}.jsonl", "--run", NAME), env)
        output = folder / f"answers-{number}.jsonl"
        ran = run(slurminfer("batch", path, output, "--run", NAME), env)
    usages = [row["usage"] for row in read_lines(output)]
    sums = {name: sum(usage[name] for usage in usages) for name in ("prompt_tokens", "completion_tokens")}
    return {"batch_s": ran.seconds, "start_s": start.seconds, "driver_mib": ran.peak_mib, **sums}
