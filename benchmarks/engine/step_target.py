"""What a bound on the time of steps costs: tokens/s of many requests at once, at several values of `target_itl_ms`.

    python -m benchmarks.engine.step_target MODEL

So many requests are always under way, as in a batch job. All targets are run in turns. Prints the medians of tokens/s,
prompts included, of the time between two tokens of a sequence, and its 99th percentile.
"""

import argparse
import gc
import random
import statistics
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace

from rich.console import Console
from rich.table import Table

from slurminfer.jobs.bench.engine.results import quantile
from slurminfer.nodes.native.engine.core import EngineCore
from slurminfer.nodes.native.engine.request import Request, SamplingParams
from slurminfer.nodes.native.model.loading import load_model
from slurminfer.nodes.native.options import EngineOptions
from slurminfer.quant.models import resolve


@dataclass(frozen=True, slots=True)
class Pass:
    """One batch, computed once."""

    tokens_per_s: float  # of prompts and answers
    gaps_s: Sequence[float]  # between two tokens of one sequence


def compute(core: EngineCore, requests: Sequence[Request], together: int) -> Pass:
    """Compute requests, with `together` of them under way as long as there are so many."""
    waiting = deque(requests)
    last: dict[str, float] = {}
    gaps: list[float] = []
    under_way = 0
    began = time.perf_counter()
    while waiting or core.busy:
        while waiting and under_way < together:
            core.submit([waiting.popleft()])
            under_way += 1
        for output in core.step():
            now = time.perf_counter()
            if output.request.id in last:
                gaps.append(now - last[output.request.id])
            last[output.request.id] = now
            under_way -= output.finish is not None
    seconds = time.perf_counter() - began
    return Pass(sum(len(request.tokens) for request in requests) / seconds, gaps)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--targets", type=float, nargs="+", default=[0.0, 100.0, 200.0, 400.0], help="ms; 0: no bound")
    parser.add_argument("--requests", type=int, default=64)
    parser.add_argument("--together", type=int, default=32, help="requests that are under way at a time")
    parser.add_argument("--prompt", type=int, default=300, help="tokens")
    parser.add_argument("--answer", type=int, default=48, help="tokens")
    parser.add_argument("--rounds", type=int, default=2)
    args = parser.parse_args()
    options = EngineOptions(model=resolve(args.model), kv_cache_gib=1, max_running_requests=args.together)
    model = load_model(options)
    gc.freeze()  # as the server does
    passes: dict[float, list[Pass]] = {target: [] for target in args.targets}
    for round_ in range(args.rounds):
        for target in args.targets:
            core = EngineCore(model, replace(options, target_itl_ms=target))
            passes[target].append(compute(core, _requests(args, core.limits.vocab_size, round_), args.together))
    table = Table("target, ms", "tokens/s", "gap, ms", "99% of gaps, ms")
    for target, found in passes.items():
        gaps = [1000 * gap for one in found for gap in one.gaps_s]
        speed = statistics.median(one.tokens_per_s for one in found)
        table.add_row(f"{target:g}", f"{speed:.0f}", f"{statistics.median(gaps):.0f}", f"{quantile(gaps, 0.99):.0f}")
    Console().print(table)


def _requests(args: argparse.Namespace, vocab_size: int, seed: int) -> list[Request]:
    chosen = random.Random(seed)
    params = SamplingParams(max_tokens=args.answer, temperature=0)
    prompts = [[chosen.randrange(vocab_size) for _ in range(args.prompt)] for _ in range(args.requests)]
    return [Request(str(number), prompt, params) for number, prompt in enumerate(prompts)]


if __name__ == "__main__":
    main()
