"""`python -m slurminfer.jobs.evaluate.worker`: one engine is measured. An `EvaluateTask` in, an `EngineResult` out.

Every engine is a process of its own, so that peak memory is that engine's and nothing of one stays for the next.
"""

from pathlib import Path
from typing import Any

import msgspec

from ...core.machine.pytorch import import_pytorch
from ...core.machine.readings import peak_bytes, resident_bytes
from ...core.processes.process import exit_at_once
from ...nodes.native.timing import LONGEST, StepTimes, measure_speed
from ..measuring import work

_GIB = 1 << 30
_KV_CACHE_GIB = 1


class EvaluateTask(msgspec.Struct, frozen=True, kw_only=True):
    """The engine that a worker loads, and what it measures."""

    model: str
    options: dict[str, Any]  # further EngineOptions, by name
    tokens: tuple[int, ...]
    bos_id: int | None
    window: int
    chunk: int | None  # tokens in a step of the perplexity; None: leave perplexity out
    batches: tuple[int, ...]


class EngineResult(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker has measured of one engine."""

    dtype: str  # computed in
    losses: tuple[float, ...]  # nats of each scored token; empty where perplexity was left out
    times: StepTimes
    weights_bytes: int  # memory that loading took
    peak_bytes: int
    kv_bytes_per_token: int


def measure(task: EvaluateTask) -> EngineResult:
    """Load the engine, then measure perplexity and speed. Raises what load_model and perplexity raise."""
    import_pytorch()
    from ...nodes.native.engine.core import EngineCore
    from ...nodes.native.model.loading import load_model
    from ...nodes.native.options import EngineOptions
    from ...nodes.native.perplexity import perplexity
    from ...quant.checkpoint.config import read_config

    model, memory = Path(task.model), _Memory()
    context_length = min(read_config(model).context_length, max(task.window, LONGEST))
    options = EngineOptions(model=model, context_length=context_length, kv_cache_gib=_KV_CACHE_GIB, **task.options)
    runner = load_model(options)
    weights_bytes = memory.weights_bytes()
    losses: tuple[float, ...] = ()
    if task.chunk:
        losses = perplexity(runner, task.tokens, window=task.window, chunk=task.chunk, bos_id=task.bos_id).losses
    return EngineResult(
        dtype=str(runner.cache.format.dtype).removeprefix("torch."),
        losses=losses,
        times=measure_speed(EngineCore(runner, options), task.tokens, task.batches),
        weights_bytes=weights_bytes,
        peak_bytes=memory.peak_bytes(),
        kv_bytes_per_token=runner.cache.bytes_per_token,
    )


class _Memory:
    """Memory of the GPU, or of this process where there is none. To be made before the model is loaded."""

    def __init__(self) -> None:
        import torch

        self._cuda = torch.cuda if torch.cuda.is_available() else None
        self._before = self._used()

    def weights_bytes(self) -> int:
        """What loading took. A KV cache takes a process's memory only when it is written, but a GPU's at once."""
        return self._used() - self._before - (_KV_CACHE_GIB * _GIB if self._cuda else 0)

    def peak_bytes(self) -> int:
        """The most that was taken at once."""
        return self._cuda.max_memory_allocated() if self._cuda else peak_bytes()

    def _used(self) -> int:
        return self._cuda.memory_allocated() if self._cuda else resident_bytes()


if __name__ == "__main__":
    exit_at_once(work(measure, EvaluateTask))
