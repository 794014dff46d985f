"""`python -m slurminfer.jobs.evaluate.worker`: one measured engine. A `Task` as JSON in, its `Result` out.

Every engine is a process of its own, so that peak memory is that engine's and nothing of one stays for the next.
"""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from ...core.errors import SlurminferError
from ...nodes.native.timing import LONGEST, StepTimes, measure_speed

if TYPE_CHECKING:  # what imports torch stays out of `evaluate`, which takes Task and Result from here
    import torch

    from ...nodes.native.model.runner import Runner
    from ...nodes.native.options import EngineOptions

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
    kv_bytes_per_token: int


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
    from ...nodes.native.engine.core import EngineCore
    from ...nodes.native.model.runner import load_model
    from ...nodes.native.options import EngineOptions
    from ...nodes.native.perplexity import perplexity
    from ...quant.checkpoint.config import read_config

    model, memory = Path(task.model), _Memory()
    context_length = min(read_config(model).max_position_embeddings, max(task.window, LONGEST))
    options = EngineOptions(model=model, context_length=context_length, kv_cache_gib=_KV_CACHE_GIB, **task.options)
    runner = load_model(options)
    weights_bytes = memory.weights_bytes()
    losses: tuple[float, ...] = ()
    if task.chunk:
        losses = perplexity(runner, task.tokens, window=task.window, chunk=task.chunk, bos_id=task.bos_id).losses
    return Result(
        dtype=str(_dtype(options)).removeprefix("torch."),
        losses=losses,
        times=measure_speed(EngineCore(runner, options), task.tokens, task.batches),
        weights_bytes=weights_bytes,
        peak_bytes=memory.peak_bytes(),
        kv_bytes_per_token=_kv_bytes(runner, options),
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


def _kv_bytes(runner: "Runner", options: "EngineOptions") -> int:
    """Of one token, over all layers."""
    from ...nodes.native.model.kv_cache import block_bytes
    from ...quant.kv import make_format

    format = make_format(options.kv_cache_dtype, runner.config.head_dim, _dtype(options), _device())
    return block_bytes(runner.config, runner.block_size, format) // runner.block_size


def _dtype(options: "EngineOptions") -> "torch.dtype":
    """What the engine computes in."""
    import torch

    from ...quant.numerics import native_dtype

    found: torch.dtype = native_dtype(_device()) if options.dtype == "auto" else getattr(torch, options.dtype)
    return found


def _device() -> "torch.device":
    """What the engine takes where nothing else is asked for."""
    import torch

    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


if __name__ == "__main__":
    sys.exit(main())
