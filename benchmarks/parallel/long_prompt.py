"""The time until a long prompt is answered: one process on one core, against two ranks that have a core each.

    python -m benchmarks.parallel.long_prompt

SmolLM2-135M in bfloat16, whose context has 8192 tokens, over gloo on this machine: two ranks that share each layer, two
that share the tokens. For each, prompts of random tokens, then the tokens after them. Prints a table and writes
benchmarks/results/long_prompt.json.
"""

import asyncio
import json
import random
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

import httpx
from rich.console import Console
from rich.table import Table

from slurminfer.core.files import write_atomic
from slurminfer.core.workers.parallel import ParallelDegrees
from slurminfer.quant.models import resolve

from ..machine import machine
from .engine import here

RESULTS = Path(__file__).parents[1] / "results" / "long_prompt.json"
LAYOUTS: Mapping[str, tuple[ParallelDegrees, int]] = {  # with threads of a rank
    "one process, 1 core": (ParallelDegrees(), 1),
    "one process, 2 cores": (ParallelDegrees(), 2),
    "tensor_parallel = 2": (ParallelDegrees(tensor_parallel=2), 1),
    "sequence_parallel = 2": (ParallelDegrees(sequence_parallel=2), 1),
}
LENGTHS = (4096, 8000)
_REPEATS = 2
_AFTER = 32  # tokens
_OF_TEXT = range(1000, 40000)  # tokens that are no control tokens


async def answer(url: str, prompt: Sequence[int]) -> tuple[float, float]:
    """Seconds until the first token, and of each one after it."""
    body = {"model": "m", "prompt": prompt, "max_tokens": _AFTER, "temperature": 0, "ignore_eos": True, "stream": True}
    began, times = time.perf_counter(), []
    async with (
        httpx.AsyncClient(base_url=url, timeout=600) as client,
        client.stream("POST", "/v1/completions", json=body) as said,
    ):
        async for line in said.aiter_lines():
            if line.startswith("data: {"):
                times.append(time.perf_counter())
    return times[0] - began, (times[-1] - times[0]) / (_AFTER - 1)


def measured(model: Path, layout: ParallelDegrees, threads: int) -> dict[int, dict[str, float]]:
    """By the length of the prompt, medians."""
    choose = random.Random(0)
    found = {}
    with here(model, "bfloat16", layout, f"--threads={threads}", "--context-length=8192") as engine:
        asyncio.run(answer(engine.url, choose.choices(_OF_TEXT, k=600)))
        for length in LENGTHS:
            runs = [asyncio.run(answer(engine.url, choose.choices(_OF_TEXT, k=length))) for _ in range(_REPEATS)]
            found[length] = {
                "first_token_s": median(first for first, _ in runs),
                "next_token_ms": 1000 * median(after for _, after in runs),
            }
    return found


def main() -> None:
    model, state = resolve("demo"), machine()
    found: dict[str, dict[int, dict[str, float]]] = {}
    table = Table("bfloat16", *(f"{length} tokens: s to the first, ms a token after" for length in LENGTHS))
    for name, (layout, threads) in LAYOUTS.items():
        found[name] = measured(model, layout, threads)
        cells = (f"{each['first_token_s']:.2f}, {each['next_token_ms']:.1f}" for each in found[name].values())
        table.add_row(name, *cells)
    Console().print(table)
    record = {"date": datetime.now(UTC).isoformat(timespec="seconds"), "machine": state, "runs": found}
    write_atomic(RESULTS, json.dumps(record, indent=2) + "\n", mode=None)


if __name__ == "__main__":
    main()
