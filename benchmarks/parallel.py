"""The native engine over several processes against one: the same tokens, and what a step spends on the others.

    python -m benchmarks.parallel

SmolLM2-135M over gloo on this machine, as `slurminfer serve --local` runs it: two ranks that share each layer, two
stages, and both. Greedy answers to 40 questions in float32, where they must be the same; in bfloat16 and 4 bits, where
rounding may turn a choice and they go on from there. Then the time of single steps, from the engine's own counters.
Prints tables and writes benchmarks/results/parallel.json.
"""

import asyncio
import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import httpx
from rich.console import Console
from rich.table import Table

from slurminfer.core.files import write_atomic
from slurminfer.quant.models import resolve

from . import GIVEN
from .engine import QUESTIONS, machine, quantized

RESULTS = Path(__file__).parent / "results" / "parallel.json"
LAYOUTS: Mapping[str, tuple[str, ...]] = {
    "1": (),
    "tp2": ("--tensor-parallel=2",),
    "pp2": ("--pipeline-parallel=2",),
    "tp2pp2": ("--tensor-parallel=2", "--pipeline-parallel=2"),
}
KINDS = ("float32", "bfloat16", "4 bits")
BATCHES = (1, 8)
_ANSWER, _TIMED = 32, 64  # tokens
_COUNTERS = ("steps", "step_seconds", "communication_seconds")


@dataclass(frozen=True)
class Engine:
    """A running engine."""

    url: str

    def answers(self, prompts: Sequence[str], tokens: int, at_once: int) -> list[list[str]]:
        """Greedy answers, token by token."""
        return asyncio.run(self._answers(prompts, tokens, at_once))

    async def _answers(self, prompts: Sequence[str], tokens: int, at_once: int) -> list[list[str]]:
        room = asyncio.Semaphore(at_once)
        async with httpx.AsyncClient(base_url=self.url, timeout=600) as client:

            async def answer(prompt: str) -> list[str]:
                body = {"model": "m", "prompt": prompt, "max_tokens": tokens, "temperature": 0, "ignore_eos": True,
                        "logprobs": 0}  # fmt: skip
                async with room:
                    said = await client.post("/v1/completions", json=body)
                said.raise_for_status()
                found: list[str] = said.json()["choices"][0]["logprobs"]["tokens"]
                return found

            return await asyncio.gather(*map(answer, prompts))

    def counters(self) -> dict[str, float]:
        text = httpx.get(f"{self.url}/metrics").text
        found = {name: re.search(rf"^slurminfer_engine_{name}_total (.*)$", text, re.MULTILINE) for name in _COUNTERS}
        return {name: float(match[1]) for name, match in found.items() if match}


@contextmanager
def started(model: Path, kind: str, layout: Sequence[str]) -> Iterator[Engine]:
    """An engine that answers; ended afterwards."""
    dtype = "float32" if kind == "float32" else "bfloat16"
    argv = [sys.executable, "-m", "slurminfer.nodes.native", "--model", str(model), "--served-model-name=m", "--port=0",
            f"--dtype={dtype}", "--kv-cache-gib=0.5", "--context-length=1024", *layout]  # fmt: skip
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=GIVEN)
    try:
        assert process.stdout is not None
        lines = iter(process.stdout.readline, "")
        url = next(found[0] for line in lines if (found := re.search(r"http://\S+:\d+", line)))
        if not any(line.startswith("ready") for line in lines):
            raise SystemExit(f"{' '.join(argv)}: exit status {process.wait()}")
        yield Engine(url)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def equal_share(one: Sequence[Sequence[str]], other: Sequence[Sequence[str]]) -> float:
    """Of all tokens, those before an answer first differs from the other's."""
    same = total = 0
    for left, right in zip(one, other, strict=True):
        total += len(left)
        same += next((i for i, (a, b) in enumerate(zip(left, right, strict=True)) if a != b), len(left))
    return same / total


def timed(engine: Engine, prompts: Sequence[str], batch: int) -> dict[str, float]:
    """Milliseconds of a step that decodes `batch` sequences, and of communication in it."""
    engine.answers(prompts[:batch], 4, batch)  # their prompts are in the prefix cache then
    before = engine.counters()
    engine.answers(prompts[:batch], _TIMED, batch)
    steps, seconds, communication = (engine.counters()[name] - before[name] for name in _COUNTERS)
    return {"step_ms": 1000 * seconds / steps, "communication_ms": 1000 * communication / steps}


def main() -> None:
    model = resolve("demo")
    models = {"float32": model, "bfloat16": model, "4 bits": quantized(model, "smollm2", "--group-size=64")}
    lines = QUESTIONS.read_text().splitlines()
    prompts = [json.loads(line)["messages"][0]["content"] for line in lines]
    state = machine()
    found: dict[str, dict[str, dict[str, object]]] = {}
    console = Console()
    for kind in KINDS:
        expected: list[list[str]] = []
        table = Table(
            kind, "tokens as of one process", *(f"ms a step, batch {batch} (with others)" for batch in BATCHES)
        )
        for name, layout in LAYOUTS.items():
            with started(models[kind], kind, layout) as engine:
                answers = engine.answers(prompts, _ANSWER, at_once=4)
                expected = expected or answers
                steps = {batch: timed(engine, prompts, batch) for batch in BATCHES}
            share = equal_share(expected, answers)
            found.setdefault(kind, {})[name] = {"tokens_equal": share, "steps": steps}
            cells = (f"{steps[batch]['step_ms']:.1f} ({steps[batch]['communication_ms']:.1f})" for batch in BATCHES)
            table.add_row(name, f"{share:.4f}", *cells)
        console.print(table)
    ratios = {f"{name}_tokens_equal": found["float32"][name]["tokens_equal"] for name in LAYOUTS if name != "1"}
    tp2 = found["4 bits"]["tp2"]["steps"][1]  # type: ignore[index]
    ratios["tp2_comm_share"] = tp2["communication_ms"] / tp2["step_ms"]
    console.print({name: round(value, 4) for name, value in ratios.items()})  # type: ignore[call-overload]
    record = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": state,
        "ratios": ratios,
        "runs": found,
    }
    write_atomic(RESULTS, json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
