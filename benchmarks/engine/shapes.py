"""The comparison of compare.py for two other shapes of models: TinyLlama-1.1B, and Qwen2.5-0.5B with random weights.

    python -m benchmarks.engine.shapes --vllm .venv-vllm/bin/python --llama-cpp .venv-llama/bin/python

Random weights compute as fast as others and say nothing: of that model, only speed counts. transformers is left out,
which takes most of the time. Prints tables and writes benchmarks/results/shapes.json.
"""

import json
import shutil
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from slurminfer.core.files import write_atomic
from slurminfer.core.paths import models_root
from slurminfer.quant.models import resolve

from ..machine import machine
from ..npm_models import tinyllama, tinyllama_gguf
from .compare import arguments, compare, entries, medians, peers_of, print_medians, quantized, questions

CONTEXT = 2048  # all that TinyLlama has
RESULTS = Path(__file__).parents[1] / "results" / "shapes.json"


def random_qwen() -> Path:
    """A model directory of Qwen2.5-0.5B's shape, with the demo model's tokenizer, which has fewer tokens."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    path, demo = models_root() / "bench-qwen2-0.5b-random", resolve("demo")
    if path.exists():
        return path
    config = Qwen2Config(
        vocab_size=151936, hidden_size=896, intermediate_size=4864, num_hidden_layers=24, num_attention_heads=14,
        num_key_value_heads=2, max_position_embeddings=32768, tie_word_embeddings=True,
    )  # fmt: skip
    torch.manual_seed(0)
    beside, model = path.with_name(f".{path.name}"), Qwen2ForCausalLM(config)
    model.bfloat16().save_pretrained(beside)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(demo / name, beside)
    beside.rename(path)
    return path


def measure(
    model: Path, small: Path, gguf: Path | None, peers: Mapping[str, str], rounds: int
) -> Sequence[Mapping[str, Any]]:
    """Runs of all engines but transformers, in turns."""
    compared = [entry for entry in entries(model, small, gguf, peers) if entry.engine != "transformers"]
    return compare(compared, questions(model), rounds, CONTEXT)


def main() -> None:
    args = arguments(__doc__).parse_args()
    console, peers, state = Console(), peers_of(args), machine()
    few = ("--calibration=tiny", "--samples=16", "--sample-length=128")
    llama, qwen = tinyllama(), random_qwen()
    small_llama = quantized(llama, "tinyllama", "--group-size=64", *few)
    small_qwen = quantized(qwen, "qwen2-0.5b", "--group-size=128", *few)
    gguf = tinyllama_gguf() if peers["llama.cpp"] else None
    runs = {
        "TinyLlama-1.1B": measure(llama, small_llama, gguf, peers, args.rounds),
        "Qwen2.5-0.5B, random": measure(qwen, small_qwen, None, peers, args.rounds),
    }
    found = {name: medians(each) for name, each in runs.items()}
    for name, each in found.items():
        console.print(name)
        print_medians(each, console)
    date = datetime.now(UTC).isoformat(timespec="seconds")
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(
        RESULTS,
        json.dumps({"date": date, "machine": state, "medians": found, "runs": runs}, indent=2) + "\n",
        mode=None,
    )


if __name__ == "__main__":
    main()
