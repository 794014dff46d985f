"""Real text on a GPU: the same greedy tokens as on the CPU, with decode steps recorded as CUDA graphs and without.

python -m benchmarks.gpu.text MODEL
"""

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch

from slurminfer.nodes.native.model.loading import load_model
from slurminfer.nodes.native.model.step import Chunk, Model
from slurminfer.nodes.native.options import Device, Dtype, EngineOptions
from slurminfer.nodes.native.tokenizer import Tokenizer
from slurminfer.quant.models import resolve

PROMPTS = (
    "The capital of France is",
    "Water boils at",
    "Once upon a time, there was a little robot who",
    "def fibonacci(n):\n",
)
_BLOCKS, _ANSWER, _TIMED = 32, 40, 200
WAYS: Sequence[tuple[Device, Dtype, Literal["on", "off"]]] = (
    ("cpu", "float32", "off"),
    ("cuda", "float32", "off"),
    ("cuda", "float32", "on"),
    ("cuda", "bfloat16", "off"),
    ("cuda", "bfloat16", "on"),
)


def greedy(model: Model, prompts: Sequence[Sequence[int]], count: int) -> tuple[list[list[int]], torch.Tensor]:
    """All sequences, and the logits behind their last tokens."""
    sequences = [list(prompt) for prompt in prompts]
    size = model.block_size
    tables = [list(range(i * _BLOCKS, (i + 1) * _BLOCKS)) for i in range(len(sequences))]
    logits = model.forward([Chunk(s, 0, t[: -(-len(s) // size)], 1) for s, t in zip(sequences, tables, strict=True)])
    for _ in range(count):
        for sequence, token in zip(sequences, logits.argmax(-1).tolist(), strict=True):
            sequence.append(token)
        logits = model.forward(
            [Chunk(s[-1:], len(s) - 1, t[: -(-len(s) // size)], 1) for s, t in zip(sequences, tables, strict=True)]
        )
    return sequences, logits.float().cpu().clone()


def main() -> None:
    directory = resolve(sys.argv[1])
    tokenizer = Tokenizer(Path(directory))
    prompts = [tokenizer.encode(prompt, add_special_tokens=False) for prompt in PROMPTS]
    expected, exact = [[0]], torch.zeros(1)
    for device, dtype, graphs in WAYS:
        options = EngineOptions(
            model=directory, device=device, dtype=dtype, cuda_graphs=graphs, context_length=1024, kv_cache_gib=1.0,
            max_running_requests=8, kernels="torch",
        )  # fmt: skip
        began = time.monotonic()
        model = load_model(options)
        load_s = time.monotonic() - began
        found, logits = greedy(model, prompts, _ANSWER)
        if device == "cpu":
            expected, exact = found, logits
        pairs = [a == b for left, right in zip(found, expected, strict=True) for a, b in zip(left, right, strict=True)]
        error = float((logits - exact).abs().max() / exact.abs().max()) if all(pairs) else float("nan")
        print(f"{device} {dtype}, graphs {graphs}: loaded in {load_s:.1f} s, tokens as on the CPU {sum(pairs)} of "
              f"{len(pairs)}, error of logits {error:.1e}", end="", flush=True)  # fmt: skip
        if device == "cuda":
            began = time.monotonic()
            greedy(model, prompts, _TIMED)
            print(
                f", {len(prompts)} at once: {len(prompts) * _TIMED / (time.monotonic() - began):.0f} tokens/s", end=""
            )
        print()
    for sequence in found:
        print(repr(tokenizer.decode(sequence)))


if __name__ == "__main__":
    main()
