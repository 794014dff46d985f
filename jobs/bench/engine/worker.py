"""`python -m slurminfer.jobs.bench.engine.worker`: measures one engine. A `BenchTask` as JSON in, its `Measured` out.

A process of its own, so that peak memory and time to load are the engine's. Scheduler and sampler are in what is
measured, HTTP is not.
"""

import random
import sys
import time
from collections import deque
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import msgspec

from ....core.errors import EngineError, SlurminferError

if TYPE_CHECKING:  # what imports torch stays out of the command, which takes the structs from here
    from ....nodes.native.engine.core import EngineCore
    from ....nodes.native.engine.request import Request

_WARM_UP, _STEPS, _FEWEST_STEPS, _SECONDS = 3, 32, 6, 6.0
ROOM = 64  # tokens that are generated behind a context
_PREFILLS = 3
_BANDWIDTH_BYTES = 1 << 30  # far more than caches hold


class BenchTask(msgspec.Struct, frozen=True, kw_only=True):
    """What to load and what to measure."""

    options: dict[str, Any]  # of EngineOptions; paths as text
    tokens: tuple[int, ...]  # a text, which prompts are pieces of
    batches: tuple[int, ...]
    contexts: tuple[int, ...]
    prefills: tuple[int, ...]
    rate: float | None  # requests/s; None: half of what the engine can answer
    requests: int
    prompt: int
    answer: int


class Decode(msgspec.Struct, frozen=True, kw_only=True):
    """Steps in which each of `batch` sequences of `context` tokens gets a token, or several where guesses are right."""

    batch: int
    context: int
    step_s: float  # median
    step_tokens: float  # mean

    @property
    def tokens_per_s(self) -> float:
        return self.step_tokens / self.step_s


class Prefill(msgspec.Struct, frozen=True, kw_only=True):
    """One prompt, up to its first token."""

    tokens: int
    seconds: float

    @property
    def tokens_per_s(self) -> float:
        return self.tokens / self.seconds


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """Requests that arrive at random (Poisson), as long as they took."""

    rate: float  # requests/s that arrived
    tokens_per_s: float
    ttft_s: tuple[float, ...]  # of each request, from its arrival to its first token
    itl_s: tuple[float, ...]  # between two tokens of a request


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """What was seen."""

    dtype: str
    compiled: bool
    load_s: float
    decode: tuple[Decode, ...]
    prefill: tuple[Prefill, ...]
    load: Load
    peak_bytes: int
    weight_bytes: int  # that a step of one token reads; 0 where the engine cannot tell
    kv_bytes_per_token: int
    bandwidth: float  # bytes/s that this machine reads from memory


def main() -> int:
    """Measure what standard input describes; the exit status."""
    try:
        measured = measure(msgspec.json.decode(sys.stdin.buffer.read(), type=BenchTask))
    except SlurminferError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    sys.stdout.buffer.write(msgspec.json.encode(measured))
    return 0


def measure(task: BenchTask) -> Measured:
    """Raises what load_model raises."""
    began = time.perf_counter()
    from ....nodes.native.engine.core import EngineCore
    from ....nodes.native.model.fused.store import finish_writing
    from ....nodes.native.model.runner import load_draft, load_model
    from ....nodes.native.options import EngineOptions

    paths = {name: Path(value) for name, value in task.options.items() if name in ("model", "draft_model") and value}
    options = EngineOptions(**(task.options | paths))
    runner = load_model(options)
    core = EngineCore(runner, options, load_draft(options, runner) if options.speculative == "draft" else None)
    load_s = time.perf_counter() - began
    finish_writing()
    pieces = _Pieces(task.tokens)
    points = (_decode(core, pieces, batch, context) for context in task.contexts for batch in task.batches)
    decode = tuple(point for point in points if point is not None)
    if not decode:
        raise EngineError("the KV cache has no room for any of the batches: expected fewer or shorter sequences")
    prefill = tuple(
        Prefill(tokens=count, seconds=median(_prefill_s(core, pieces.take(count)) for _ in range(_PREFILLS)))
        for count in task.prefills
    )
    rate = task.rate or _half_of_capacity(decode, prefill, task)
    return Measured(
        dtype=str(runner.cache.format.dtype).removeprefix("torch."),
        compiled=runner.compiled,
        load_s=load_s,
        decode=decode,
        prefill=prefill,
        load=_load(core, pieces, task, rate),
        peak_bytes=_peak_bytes(),
        weight_bytes=getattr(runner.decoder, "weight_bytes", 0),
        kv_bytes_per_token=runner.cache.bytes_per_token,
        bandwidth=bandwidth(),
    )


class _Pieces:
    """Of a text, no two with the same beginning: what the prefix cache has would not be computed."""

    def __init__(self, tokens: Sequence[int]) -> None:
        self._tokens, self._next = tokens, 0

    def take(self, count: int) -> list[int]:
        self._next += 1
        start = self._next % len(self._tokens)
        turned = [*self._tokens[start:], *self._tokens[:start]]
        return (turned * (count // len(turned) + 1))[:count]


def _requests(prompts: Sequence[list[int]], max_tokens: int) -> list["Request"]:
    from ....nodes.native.engine.request import Request, SamplingParams

    params = SamplingParams(max_tokens=max_tokens, temperature=0)
    return [Request(str(i), prompt, params) for i, prompt in enumerate(prompts)]


def _decode(core: "EngineCore", pieces: _Pieces, batch: int, context: int) -> Decode | None:
    """None where the KV cache has no room for so many at once."""
    prompts = [pieces.take(context) for _ in range(batch)]
    for prompt in prompts:  # into the prefix cache, so that all start as one
        _prefill_s(core, prompt)
    requests = _requests(prompts, ROOM)
    for request in requests:
        core.add(request)
    seconds: list[float] = []
    tokens = steps = 0
    while core.busy and len(seconds) < _STEPS and (len(seconds) < _FEWEST_STEPS or sum(seconds) < _SECONDS):
        began = time.perf_counter()
        outputs = core.step()
        took = time.perf_counter() - began
        if len({output.request.id for output in outputs}) < batch:
            continue
        steps += 1
        if steps > _WARM_UP:
            seconds.append(took)
            tokens += len(outputs)
    for request in requests:
        core.abort(request.id)
    if not seconds:
        return None
    return Decode(batch=batch, context=context, step_s=median(seconds), step_tokens=tokens / len(seconds))


def _prefill_s(core: "EngineCore", prompt: list[int]) -> float:
    core.add(*_requests([prompt], 1))
    began = time.perf_counter()
    while core.busy:
        core.step()
    return time.perf_counter() - began


def _half_of_capacity(decode: Sequence[Decode], prefill: Sequence[Prefill], task: BenchTask) -> float:
    seconds = task.answer / max(one.tokens_per_s for one in decode)
    return 0.5 / (seconds + task.prompt / max(one.tokens_per_s for one in prefill))


def _load(core: "EngineCore", pieces: _Pieces, task: BenchTask, rate: float) -> Load:
    """Arrivals are the same for the same rate."""
    prompts = [pieces.take(task.prompt) for _ in range(task.requests)]
    chosen = random.Random(0)
    arrivals = accumulate(chosen.expovariate(rate) for _ in prompts)
    waiting = deque(zip(arrivals, _requests(prompts, task.answer), strict=True))
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
    return Load(rate=rate, tokens_per_s=(len(ttft) + len(itl)) / seconds, ttft_s=tuple(ttft), itl_s=tuple(itl))


def bandwidth() -> float:
    """Bytes/s that this machine reads from memory: the best of several, for whatever else runs only takes from it."""
    import torch

    numbers, best = torch.ones(_BANDWIDTH_BYTES // 8, dtype=torch.int64), 0.0
    for _ in range(5):
        began = time.perf_counter()
        numbers.sum()
        best = max(best, numbers.nbytes / (time.perf_counter() - began))
    return best


def _peak_bytes() -> int:
    # VmHWM, not ru_maxrss: that also counts the process that forked this one.
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) * 1024


if __name__ == "__main__":
    sys.exit(main())
