"""What `slurminfer evaluate` has its workers measure, and what they answer."""

from typing import Any

import msgspec

from ...nodes.native.timing import StepTimes


class EvaluateTask(msgspec.Struct, frozen=True, kw_only=True):
    """What to load and what to measure."""

    model: str
    options: dict[str, Any]  # further EngineOptions, by name
    tokens: tuple[int, ...]
    bos_id: int | None
    window: int
    chunk: int | None  # tokens in a step of the perplexity; None: leave perplexity out
    batches: tuple[int, ...]


class EngineResult(msgspec.Struct, frozen=True, kw_only=True):
    """What one engine did."""

    dtype: str  # computed in
    losses: tuple[float, ...]  # see Perplexity; empty without it
    times: StepTimes
    weights_bytes: int  # memory that loading took
    peak_bytes: int
    kv_bytes_per_token: int
