"""What `slurminfer bench engine` measures, as its worker gets it."""

from typing import Any

import msgspec

from ....nodes.native.timing import Pace

PACE = Pace(steps=32, fewest=6, seconds=6.0)
PREFILL_REPEATS = 3


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
