"""What the engine counts of itself."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class EngineStats:
    """The engine's figures after a step; each field but `process` is the name of a metric in api/metrics.py."""

    running_requests: int = 0
    waiting_requests: int = 0
    paused_requests: int = 0
    kv_blocks_used: int = 0
    kv_blocks_total: int = 0
    kv_block_tokens: int = 0
    prefix_cache_hit_tokens: int = 0
    prompt_tokens: int = 0
    generation_tokens: int = 0
    steps: int = 0
    step_seconds: float = 0.0
    communication_seconds: float = 0.0
    preemptions: int = 0
    failed_requests: int = 0
    compiled_kernels: bool = False
    speculative_draft_tokens: int = 0
    speculative_accepted_tokens: int = 0
    process: Mapping[str, str] = field(default_factory=dict)  # see model/process.py
