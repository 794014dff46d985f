"""`python -m slurminfer.jobs.bench.engine.worker`: measures one engine. A `BenchTask` as JSON in, its `Measured` out.

A process of its own, so that peak memory and time to load are the engine's. Scheduler and sampler are in what is
measured, HTTP is not.
"""

import random
import time
from collections import deque
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import msgspec

from ....core.errors import EngineError
from ....core.machine.pytorch import import_pytorch
from ....core.machine.readings import peak_bytes
from ....core.processes.process import exit_at_once
from ....nodes.native.timing import Pace, Prompts, decode_steps, greedy_requests, memory_bandwidth, prefill_seconds
from ...measuring import work
from .results import DecodeResult, LoadResult, Measured, PrefillResult

if TYPE_CHECKING:  # imports torch, whose time is part of loading
    from ....nodes.native.engine.core import EngineCore

PACE = Pace(steps=32, fewest=6, seconds=6.0)
_PREFILL_REPEATS = 3


class BenchTask(msgspec.Struct, frozen=True, kw_only=True):
    """The engine to load, and the points to measure."""

    options: dict[str, Any]  # EngineOptions by name; paths as text
    tokens: tuple[int, ...]  # a text, which prompts are pieces of
    batches: tuple[int, ...]
    contexts: tuple[int, ...]
    prefills: tuple[int, ...]
    rate: float | None  # requests/s; None: half of what the engine can answer
    requests: int
    prompt: int
    answer: int
    pace: Pace = PACE  # of each batch and context


def measure(task: BenchTask) -> Measured:
    """Load the engine and measure all points. Raises what load_model raises; EngineError where no batch has room."""
    began = time.perf_counter()
    import_pytorch()
    from ....nodes.native.engine.core import EngineCore
    from ....nodes.native.model.fused.store import finish_writing
    from ....nodes.native.model.loading import load_draft, load_model
    from ....nodes.native.options import EngineOptions

    paths = {name: Path(value) for name, value in task.options.items() if name in ("model", "draft_model") and value}
    options = EngineOptions(**(task.options | paths))
    runner = load_model(options)
    core = EngineCore(runner, options, load_draft(options, runner) if options.speculative == "draft" else None)
    load_s = time.perf_counter() - began
    finish_writing()
    prompts = Prompts(task.tokens)
    points = (_decode(core, prompts, batch, one, task.pace) for one in task.contexts for batch in task.batches)
    decode = tuple(point for point in points if point is not None)
    if not decode:
        raise EngineError("the KV cache has no room for any of the batches: expected fewer or shorter sequences")
    prefill = tuple(_prefill(core, prompts, count) for count in task.prefills)
    rate = task.rate or _half_of_capacity(decode, prefill, task)
    return Measured(
        dtype=str(runner.cache.format.dtype).removeprefix("torch."),
        compiled=runner.compiled,
        load_s=load_s,
        decode=decode,
        prefill=prefill,
        load=_load(core, prompts, task, rate),
        peak_bytes=peak_bytes(),
        weight_bytes=getattr(runner.decoder, "weight_bytes", 0),
        kv_bytes_per_token=runner.cache.bytes_per_token,
        bandwidth=memory_bandwidth(),
    )


def _decode(core: "EngineCore", prompts: Prompts, batch: int, context: int, pace: Pace) -> DecodeResult | None:
    """None where the KV cache has no room for so many at once."""
    pieces = [prompts.take(context) for _ in range(batch)]
    for piece in pieces:  # into the prefix cache, so that all start as one
        prefill_seconds(core, piece)
    steps = decode_steps(core, pieces, pace)
    if not steps.seconds:
        return None
    step_tokens = steps.tokens / len(steps.seconds)
    return DecodeResult(batch=batch, context=context, step_s=median(steps.seconds), step_tokens=step_tokens)


def _prefill(core: "EngineCore", prompts: Prompts, count: int) -> PrefillResult:
    seconds = median(prefill_seconds(core, prompts.take(count)) for _ in range(_PREFILL_REPEATS))
    return PrefillResult(tokens=count, seconds=seconds)


def _half_of_capacity(decode: Sequence[DecodeResult], prefill: Sequence[PrefillResult], task: BenchTask) -> float:
    """Requests/s: half as many as the fastest decode and prefill could answer one after the other."""
    seconds = task.answer / max(one.tokens_per_s for one in decode)
    return 0.5 / (seconds + task.prompt / max(one.tokens_per_s for one in prefill))


def _load(core: "EngineCore", prompts: Prompts, task: BenchTask, rate: float) -> LoadResult:
    """Arrivals are the same for the same rate."""
    pieces = [prompts.take(task.prompt) for _ in range(task.requests)]
    chosen = random.Random(0)
    arrivals = accumulate(chosen.expovariate(rate) for _ in pieces)
    waiting = deque(zip(arrivals, greedy_requests(pieces, task.answer), strict=True))
    heard: dict[str, float] = {}  # when a request arrived, or had its last token
    answered: set[str] = set()
    ttft: list[float] = []
    itl: list[float] = []
    began = time.perf_counter()
    while waiting or core.busy:
        now = time.perf_counter() - began
        while waiting and waiting[0][0] <= now:
            arrival, request = waiting.popleft()
            heard[request.id] = arrival
            core.add(request)
        if not core.busy:
            time.sleep(max(waiting[0][0] - now, 0.0))
            continue
        outputs = core.step()
        now = time.perf_counter() - began
        for id in (output.request.id for output in outputs):
            (itl if id in answered else ttft).append(now - heard[id])
            answered.add(id)
            heard[id] = now
    seconds = time.perf_counter() - began
    return LoadResult(rate=rate, tokens_per_s=(len(ttft) + len(itl)) / seconds, ttft_s=tuple(ttft), itl_s=tuple(itl))


if __name__ == "__main__":
    exit_at_once(work(measure, BenchTask))
