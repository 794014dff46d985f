"""One rank of a model that several processes compute, over steps that are given: leaves logits and pooled states.

python program.py MODEL OPTIONS(json) STEPS(json) PLACE(json) OUT
"""

import json
import queue
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from slurminfer.nodes.native.model.parallel.parallel_model import load_leader, run_follower
from slurminfer.nodes.native.model.step import Chunk, Model
from slurminfer.nodes.native.options import EngineOptions, ParallelOptions
from slurminfer.quant.checkpoint.embedding import Pooling


def chunk_of(
    tokens: list[int], start: int, blocks: list[int], logits: int, prompt: bool = False, pooling: str | None = None
) -> Chunk:
    return Chunk(tokens, start, blocks, logits, prompt, None if pooling is None else Pooling(pooling))


def run_steps(model: Model, steps: Sequence[Sequence[Sequence[Any]]]) -> list[tuple[torch.Tensor, torch.Tensor | None]]:
    """Logits and pooled states of each step; as many as the model computes at once are begun together."""
    found: list[tuple[torch.Tensor, torch.Tensor | None]] = []
    begun = 0
    for finished in range(len(steps)):
        while begun < min(len(steps), finished + model.depth):
            model.begin([chunk_of(*chunk) for chunk in steps[begun]])
            begun += 1
        output = model.finish()
        found.append((output.rows.clone(), None if output.pooled is None else output.pooled.clone()))
    return found


def main(argv: Sequence[str]) -> None:
    model, given, steps, place, out = argv
    options, where = EngineOptions(model=Path(model), **json.loads(given)), ParallelOptions(**json.loads(place))
    if where.rank:
        run_follower(options, where, queue.SimpleQueue())
    found = load_leader(options, where, queue.SimpleQueue(), lambda error: print(error, file=sys.stderr))
    outputs = run_steps(found, json.loads(steps))
    logits, pooled = [rows for rows, _ in outputs], [pooled for _, pooled in outputs]
    torch.save({"logits": logits, "pooled": pooled, "compiled": found.compiled}, out)
    found.close()


if __name__ == "__main__":
    main(sys.argv[1:])
