"""What the native engine can be told. The command line takes its flags and defaults from here."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Dtype = Literal["auto", "bfloat16", "float16", "float32"]
Device = Literal["auto", "cpu", "cuda"]


@dataclass(frozen=True, kw_only=True)
class EngineOptions:
    """Options of one engine process; None leaves a value to what the model and the machine have."""

    model: Path
    dtype: Dtype = "auto"
    device: Device = "auto"
    context_length: int | None = None
    kv_cache_gib: float | None = None
    block_size: int = 16
    max_running_requests: int = 64
    max_batch_tokens: int = 1024
    threads: int | None = None
