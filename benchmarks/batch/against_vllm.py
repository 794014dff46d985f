"""`slurminfer batch` against vLLM's own batch program, on CPUs: the same file and model, A B A B.

What counts is the time from the start of the command to its end.

Ours starts a deployment of local processes (`--spec --local`) and stops it at the end. Before the measured runs, each
computes one row, so that what it compiles is in its cache; then one row again is what it needs to start. Each with its
own default dtype (ours: as the model has it), and ours in bfloat16, as vLLM computes, besides.
"""

import statistics
import sys
from pathlib import Path
from typing import Any

from slurminfer.core.machine.libraries import preload
from slurminfer.quant.models import resolve

from .commands import Ran, run, slurminfer
from .efficiency import SPEC
from .inputs import as_openai, questions, read_lines, write_lines

TOKENS = 64
VLLM, OURS, OURS_BF16 = "vllm run-batch, bfloat16", "slurminfer batch", "slurminfer batch, bfloat16"
_DTYPES = {OURS: "auto", OURS_BF16: "bfloat16"}


class Contestants:
    """How each is run on an input file."""

    def __init__(self, folder: Path, python: str, cpus: int) -> None:
        self._folder, self._python, self._model, self._cpus = folder, python, resolve("demo"), cpus
        self._serial = 0

    def run(self, name: str, path: Path, rows: int) -> Ran:
        """From an input to a whole output. Raises RuntimeError where that has not all answers."""
        self._serial += 1
        output = self._folder / f"answers-{self._serial}.jsonl"
        ran = self._vllm(path, output) if name == VLLM else self._ours(name, path, output)
        answers = read_lines(output)
        tokens = sum(row["response"]["body"]["usage"]["completion_tokens"] for row in answers)
        if len(answers) != rows or tokens != rows * TOKENS:
            raise RuntimeError(f"{name}: {len(answers)} answers with {tokens} tokens; expected {rows} of {TOKENS}")
        print(f"vllm: {name}: {rows} rows in {ran.seconds:.1f} s, {ran.peak_mib:.0f} MiB", file=sys.stderr)
        return ran

    def _ours(self, name: str, path: Path, output: Path) -> Ran:
        spec = self._folder / f"spec-{self._serial}.toml"
        text = SPEC.format(name=f"batch-{self._serial}", model=self._model, dtype=_DTYPES[name], cpus=self._cpus)
        spec.write_text(text, encoding="utf-8")
        env = {"SLURMINFER_HOME": str(self._folder / "home")}
        return run(slurminfer("batch", path, output, "--spec", spec, "--local"), env)

    def _vllm(self, path: Path, output: Path) -> Ran:
        argv = [self._python, "-m", "vllm.entrypoints.openai.run_batch", "-i", str(path), "-o", str(output)]
        argv += ["--model", str(self._model), "--served-model-name", "m", "--dtype", "bfloat16"]
        argv += ["--max-model-len", "2048"]
        return run(argv, {"VLLM_CPU_KVCACHE_SPACE": "1", **preload(self._python)})


def measure(folder: Path, python: str, rows: int, rounds: int, cpus: int) -> dict[str, Any]:
    """Seconds of each, and how often ours is as fast by the medians: with the start, and without."""
    contestants, fields = (
        Contestants(folder, python, cpus),
        {"max_tokens": TOKENS, "temperature": 0, "ignore_eos": True},
    )
    asked = [{"messages": [{"role": "user", "content": text}], **fields} for text in questions(rows)]
    lines = [as_openai(row, number, "m") for number, row in enumerate(asked)]
    path, one = write_lines(folder / "batch.jsonl", lines), write_lines(folder / "one.jsonl", lines[:1])
    names = (VLLM, OURS, OURS_BF16)
    first = {name: contestants.run(name, one, 1).seconds for name in names}
    start = {name: contestants.run(name, one, 1).seconds for name in names}
    runs: dict[str, list[Ran]] = {name: [] for name in names}
    for number in range(rounds):
        for name in names if number % 2 == 0 else reversed(names):
            runs[name].append(contestants.run(name, path, rows))
    seconds = {name: statistics.median(ran.seconds for ran in found) for name, found in runs.items()}
    return {
        "rows": rows,
        "tokens": TOKENS,
        "first_s": first,  # one row, nothing in a cache
        "start_s": start,  # one row, again
        "seconds": seconds,
        "peak_mib": {name: max(ran.peak_mib for ran in found) for name, found in runs.items()},
        "runs": {name: [ran.seconds for ran in found] for name, found in runs.items()},
        "vs_vllm": {name: seconds[VLLM] / seconds[name] for name in (OURS, OURS_BF16)},
        "vs_vllm_without_start": {
            name: (seconds[VLLM] - start[VLLM]) / (seconds[name] - start[name]) for name in (OURS, OURS_BF16)
        },
    }
