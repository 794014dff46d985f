"""One rank of a model that several processes compute, over steps that are given: prints nothing, leaves logits.

python program.py MODEL OPTIONS(json) STEPS(json) PLACE(json) OUT
"""

import json
import queue
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from slurminfer.nodes.native.model.parallel.parallel_model import load_leader, run_follower
from slurminfer.nodes.native.model.step import Chunk
from slurminfer.nodes.native.options import EngineOptions, ParallelOptions


def main(argv: Sequence[str]) -> None:
    model, given, steps, place, out = argv
    options, where = EngineOptions(model=Path(model), **json.loads(given)), ParallelOptions(**json.loads(place))
    if where.rank:
        run_follower(options, where, queue.SimpleQueue())
    found = load_leader(options, where, queue.SimpleQueue(), lambda error: print(error, file=sys.stderr))
    logits = [found.forward([Chunk(*chunk) for chunk in step]).clone() for step in json.loads(steps)]
    torch.save({"logits": logits, "compiled": found.compiled}, out)
    found.close()


if __name__ == "__main__":
    main(sys.argv[1:])
