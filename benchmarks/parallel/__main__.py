"""The native engine over several processes against one: the same tokens, what a step takes, what arithmetic says of it.

    python -m benchmarks.parallel [--slurm]

SmolLM2-135M on this machine, as `slurminfer serve --local` runs it: two ranks that share each layer, two stages, and
both. Greedy answers to 40 questions in float32, where they must be the same; in bfloat16 and 4 bits, where rounding may
turn a choice and they go on from there. Then the time of single steps, from the engine's own counters, and tokens by
the clock. With --slurm the same again, with 8 questions, as workers over two nodes of the Slurm that this machine can
submit to; between nodes they talk over gloo. Prints tables and writes benchmarks/results/parallel.json.
"""

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from slurminfer.core.files import encode_json, write_atomic
from slurminfer.core.machine.cpus import allowed_cpus
from slurminfer.core.workers.parallel import ParallelDegrees
from slurminfer.nodes.native.model.fused.decoder import FusedDecoder
from slurminfer.nodes.native.model.loading import load_model
from slurminfer.nodes.native.options import Dtype, EngineOptions
from slurminfer.nodes.native.timing import memory_bandwidth
from slurminfer.quant.checkpoint.config import read_config
from slurminfer.quant.models import resolve
from slurminfer.slurm.submit import available

from ..engine.compare import QUESTIONS, quantized
from ..machine import machine
from .engine import ServedEngine, Timed, here, over_nodes
from .links import gloo, shared_memory
from .prediction import Machine, Predicted, predict, readers

RESULTS = Path(__file__).parents[1] / "results" / "parallel.json"
LAYOUTS: Mapping[str, ParallelDegrees] = {
    "1": ParallelDegrees(),
    "tp2": ParallelDegrees(tensor_parallel=2),
    "pp2": ParallelDegrees(pipeline_parallel=2),
    "tp2pp2": ParallelDegrees(tensor_parallel=2, pipeline_parallel=2),
}
BATCHES = (1, 8)
_ANSWER = 32  # tokens

Started = Callable[[Path, str, ParallelDegrees], AbstractContextManager[ServedEngine]]


@dataclass(frozen=True)
class Kind:
    """A model in one kind of numbers."""

    name: str
    path: Path
    dtype: Dtype

    def weight_bytes(self) -> int:
        """What a step reads, beside keys and values."""
        options = EngineOptions(model=self.path, dtype=self.dtype, kv_cache_gib=0.1, context_length=1024)
        decoder, model = load_model(options).decoder, read_config(self.path)
        if isinstance(decoder, FusedDecoder):
            return decoder.weight_bytes
        attention = 2 * (model.num_heads + model.num_kv_heads) * model.head_dim
        rows = model.num_layers * (attention + 3 * model.intermediate_size) + model.vocab_size
        return rows * model.hidden_size * torch.float32.itemsize


@dataclass(frozen=True)
class Found:
    """What was found of one layout, by batch."""

    tokens_equal: float
    measured: dict[int, Timed]
    predicted: dict[int, Predicted]


def kinds() -> list[Kind]:
    """SmolLM2-135M in float32, bfloat16 and 4 bits."""
    model = resolve("demo")
    small = quantized(model, "smollm2", "--group-size=64")
    return [Kind("float32", model, "float32"), Kind("bfloat16", model, "bfloat16"), Kind("4 bits", small, "bfloat16")]


def equal_share(one: Sequence[Sequence[str]], other: Sequence[Sequence[str]]) -> float:
    """The share of all tokens that come before an answer first differs from the other's."""
    same = total = 0
    for left, right in zip(one, other, strict=True):
        total += len(left)
        same += next((i for i, (a, b) in enumerate(zip(left, right, strict=True)) if a != b), len(left))
    return same / total


def measure(kind: Kind, started: Started, prompts: Sequence[str], machine: Machine) -> dict[str, Found]:
    """All layouts."""
    expected: list[list[str]] = []
    found, weights, config = {}, kind.weight_bytes(), read_config(kind.path)
    for name, layout in LAYOUTS.items():
        with started(kind.path, kind.dtype, layout) as engine:
            answers = engine.answers(prompts, _ANSWER, at_once=8)
            expected = expected or answers
            measured = {batch: engine.timed(prompts, batch) for batch in BATCHES}
        predicted = {batch: predict(layout, weights, config, batch, machine) for batch in BATCHES}
        found[name] = Found(equal_share(expected, answers), measured, predicted)
    return found


def table(title: str, found: Mapping[str, Found]) -> Table:
    """Measured (of it with others), by the formula, and what is measured over that."""
    columns = ("ms a step, 1 at once", "formula", "ratio", "tokens/s, 8 at once", "formula", "ratio")
    shown = Table(title, "tokens as of one process", *columns)
    for name, one in found.items():
        alone, many = (one.measured[batch] for batch in BATCHES)
        said, said_many = (one.predicted[batch] for batch in BATCHES)
        shown.add_row(
            name, f"{one.tokens_equal:.4f}",
            f"{alone.step_ms:.2f} ({alone.communication_ms:.2f})", f"{said.step_ms:.2f} ({said.communication_ms:.2f})",
            f"{alone.step_ms / said.step_ms:.2f}",
            f"{many.tokens_s:.0f}", f"{said_many.tokens_s:.0f}", f"{many.tokens_s / said_many.tokens_s:.2f}",
        )  # fmt: skip
    return shown


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slurm", action="store_true", help="also as workers over two nodes")
    with_slurm = parser.parse_args().slurm
    if with_slurm and not available():
        raise SystemExit("--slurm: no Slurm answers here; try `slurminfer sandbox start`, and export SLURM_CONF")
    prompts = [
        json.loads(line)["messages"][0]["content"] for line in QUESTIONS.read_text(encoding="utf-8").splitlines()
    ]
    state, cores, console = machine(), allowed_cpus().cores, Console()
    speeds = {threads: memory_bandwidth(threads) for threads in {readers(layout, cores) for layout in LAYOUTS.values()}}
    within = shared_memory()
    ways: dict[str, tuple[Started, int, Machine]] = {"here": (here, 40, Machine(cores, speeds, within, None))}
    if with_slurm:
        ways["two nodes"] = (over_nodes, 8, Machine(cores, speeds, within, gloo("--nodes=2")))
    found: dict[str, dict[str, dict[str, Found]]] = {}
    for way, (started, questions, rests_on) in ways.items():
        for kind in kinds():
            of_kind = measure(kind, started, prompts[:questions], rests_on)
            found.setdefault(way, {})[kind.name] = of_kind
            console.print(table(f"{kind.name}, {way}", of_kind))
        record = {
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": state,
            "formula_rests_on": {way: rests_on for way, (_, _, rests_on) in ways.items()},
            "ratios": ratios(found["here"]),
            "runs": found,
        }
        write_atomic(RESULTS, encode_json(record), mode=None)
    console.print({name: round(value, 4) for name, value in ratios(found["here"]).items()})


def ratios(found: Mapping[str, Mapping[str, Found]]) -> dict[str, float]:
    """Which must be 1, and what a step spends on the other rank."""
    equal = {f"{name}_tokens_equal": found["float32"][name].tokens_equal for name in LAYOUTS if name != "1"}
    tp2 = found["4 bits"]["tp2"].measured[1]
    return {**equal, "tp2_comm_share": tp2.communication_ms / tp2.step_ms}


if __name__ == "__main__":
    main()
