"""`python -m slurminfer.jobs.evaluate_worker`: one measured engine. A `Task` as JSON in, its `Result` out.

Every engine is a process of its own, so that peak memory is that engine's and nothing of one stays for the next.
"""

import sys
from pathlib import Path
from typing import Any

import msgspec

from ..core.errors import SlurminferError
from ..nodes.native.speed import LONGEST, StepTimes, measure_speed

_GIB = 1 << 30
_KV_CACHE_GIB = 1


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """What to load and what to measure."""

    model: str
    options: dict[str, Any]  # further ones of EngineOptions
    tokens: tuple[int, ...]
    bos_id: int | None
    window: int
    chunk: int | None  # tokens in a step of the perplexity; None: leave perplexity out
    batches: tuple[int, ...]


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """What was seen."""

    dtype: str  # computed in
    losses: tuple[float, ...]  # see Perplexity; empty without it
    times: StepTimes
    weights_bytes: int  # memory that loading took
    peak_bytes: int
    tokens_per_gib: int  # that a KV cache of 1 GiB holds


def main() -> int:
    """Measure what standard input describes; the exit status."""
    try:
        result = measure(msgspec.json.decode(sys.stdin.buffer.read(), type=Task))
    except SlurminferError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    sys.stdout.buffer.write(msgspec.json.encode(result))
    return 0


def measure(task: Task) -> Result:
    """Load the engine, then perplexity and speed. Raises what load_model and perplexity raise."""
    from ..nodes.native.engine_core import EngineCore
    from ..nodes.native.options import EngineOptions
    from ..nodes.native.perplexity import perplexity
    from ..nodes.native.runner import load_model
    from ..quant.checkpoint.config import read_config

    model, memory = Path(task.model), _Memory()
    context_length = min(read_config(model).max_position_embeddings, max(task.window, LONGEST))
    options = EngineOptions(model=model, context_length=context_length, kv_cache_gib=_KV_CACHE_GIB, **task.options)
    runner = load_model(options)
    weights_bytes = memory.weights_bytes()
    losses: tuple[float, ...] = ()
    if task.chunk:
        losses = perplexity(runner, task.tokens, window=task.window, chunk=task.chunk, bos_id=task.bos_id).losses
    return Result(
        dtype=_dtype(options.dtype),
        losses=losses,
        times=measure_speed(EngineCore(runner, options), task.tokens, task.batches),
        weights_bytes=weights_bytes,
        peak_bytes=memory.peak_bytes(),
        tokens_per_gib=runner.num_blocks * runner.block_size // _KV_CACHE_GIB,
    )


class _Memory:
    """Of a GPU, or of this process where there is none. To be made before the model is loaded."""

    def __init__(self) -> None:
        import torch

        self._cuda = torch.cuda if torch.cuda.is_available() else None
        self._before = self._used()

    def weights_bytes(self) -> int:
        """What loading took. A KV cache takes a process's memory only when it is written, but a GPU's at once."""
        return self._used() - self._before - (_KV_CACHE_GIB * _GIB if self._cuda else 0)

    def peak_bytes(self) -> int:
        # VmHWM, not ru_maxrss: that also counts the process that forked this one.
        return self._cuda.max_memory_allocated() if self._cuda else _process_bytes("VmHWM")

    def _used(self) -> int:
        return self._cuda.memory_allocated() if self._cuda else _process_bytes("VmRSS")


def _process_bytes(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:")) * 1024


def _dtype(wanted: str) -> str:
    """The name of what `wanted` means on this machine."""
    import torch

    from ..nodes.native.linears.dense import native_dtype

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return str(native_dtype(device)).removeprefix("torch.") if wanted == "auto" else wanted


if __name__ == "__main__":
    sys.exit(main())
