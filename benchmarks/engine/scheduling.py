"""In which order to compute prompts: shortest first with ageing, at several weights, against first come, first served.

    python -m benchmarks.engine.scheduling MODEL

Requests arrive at random (Poisson), one in five with a long prompt. The same arrivals for each order, in turns. Prints
the time to the first token of short and long prompts, and of all.
"""

import argparse
import gc
import random
import statistics
import time
from collections import deque
from collections.abc import Sequence
from itertools import accumulate

from rich.console import Console
from rich.table import Table

from slurminfer.jobs.bench.engine.results import quantile
from slurminfer.nodes.native.engine.core import EngineCore
from slurminfer.nodes.native.engine.request import Request, SamplingParams
from slurminfer.nodes.native.model.loading import load_model
from slurminfer.nodes.native.options import EngineOptions
from slurminfer.quant.models import resolve

WEIGHTS = (float("inf"), 3000.0, 1000.0, 300.0, 100.0)
_SHORT, _LONG, _ANSWER = (40, 160), (1200, 1900), 24  # tokens


def times(core: EngineCore, arrivals: Sequence[float], prompts: Sequence[list[int]]) -> list[float]:
    """Seconds from each request's arrival to its first token."""
    params = SamplingParams(max_tokens=_ANSWER, temperature=0)
    asked = [Request(str(i), prompt, params) for i, prompt in enumerate(prompts)]
    waiting = deque(zip(arrivals, asked, strict=True))
    first: dict[str, float] = {}
    began = time.perf_counter()
    while waiting or core.busy:
        now = time.perf_counter() - began
        while waiting and waiting[0][0] <= now:
            core.add(waiting.popleft()[1])
        if not core.busy:
            time.sleep(waiting[0][0] - now)
            continue
        for output in core.step():
            first.setdefault(output.request.id, time.perf_counter() - began)
    return [first[request.id] - arrival for arrival, request in zip(arrivals, asked, strict=True)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--rate", type=float, default=2.0, help="requests/s")
    parser.add_argument("--requests", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=2)
    args = parser.parse_args()
    chosen = random.Random(0)
    is_long = [chosen.random() < 0.2 for _ in range(args.requests)]
    arrivals = list(accumulate(chosen.expovariate(args.rate) for _ in is_long))
    options = EngineOptions(model=resolve(args.model), context_length=2048, kv_cache_gib=1)
    runner = load_model(options)
    gc.collect()
    gc.freeze()
    found: dict[float, list[list[float]]] = {weight: [] for weight in WEIGHTS}
    for _ in range(args.rounds):
        for weight in WEIGHTS:  # other tokens each time: the prefix cache is to have nothing
            prompts = [
                chosen.choices(range(1000, 30000), k=chosen.randint(*(_LONG if one else _SHORT))) for one in is_long
            ]
            core = EngineCore(runner, EngineOptions(model=options.model, age_weight=weight))
            found[weight].append(times(core, arrivals, prompts))
    table = Table(
        "tokens a second makes up for", "all: mean", "short: median", "short: 95%", "long: median", "long: worst"
    )
    for weight, rounds in found.items():
        short = [s for one in rounds for s, long in zip(one, is_long, strict=True) if not long]
        long = [s for one in rounds for s, long in zip(one, is_long, strict=True) if long]
        values = (statistics.mean(short + long), statistics.median(short), quantile(short, 0.95),
                  statistics.median(long), max(long))  # fmt: skip
        name = "inf: first come, first served" if weight == float("inf") else f"{weight:.0f}"
        table.add_row(name, *(f"{1000 * value:.0f} ms" for value in values))
    Console().print(table)


if __name__ == "__main__":
    main()
