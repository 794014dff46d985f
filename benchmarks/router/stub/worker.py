"""One stub worker: what its connections share, and the ways in which it can be broken."""

import itertools
import json
import time
from enum import StrEnum
from typing import Any

from .engine import Costs, Engine
from .pulse import Pulse

ENDLESS = 10**6  # max_tokens of a stream that only ends when its client hangs up


class Mode(StrEnum):
    """What becomes of a POST."""

    GOOD = "good"
    GARBAGE = "garbage"  # bytes that are no HTTP
    REFUSING = "refusing"  # always 400
    HEADERS = "headers"  # status and headers of a stream, then the connection is closed
    HANGING = "hanging"  # no answer ever


class StubWorker:
    """What all connections of one worker share."""

    def __init__(self, model: str, costs: Costs, context: int, mode: Mode = Mode.GOOD) -> None:
        self.model, self.costs, self.mode, self.context = model, costs, mode, context
        self.engine, self.pulse = Engine(costs), Pulse()
        self.remembered: dict[bytes, bytes] = {}
        self._numbers = itertools.count(time.monotonic_ns())

    def number(self) -> int:
        """The number of the next answer, unlike those of all workers."""
        return next(self._numbers)

    def get(self, path: str) -> bytes:
        """The body that answers a GET."""
        asked = path.partition("?")[0]
        if asked.startswith("/steps/"):
            self.pulse.set_pace(float(asked.removeprefix("/steps/")))
        elif asked == "/step":
            self.pulse.step()
        elif asked.startswith("/mode/"):
            self.mode = Mode(asked.removeprefix("/mode/"))
        elif asked == "/metrics":
            return self._metrics()
        elif asked.endswith("/models"):
            card = {"id": self.model, "object": "model", "owned_by": "stub", "max_model_len": self.context}
            return json.dumps({"object": "list", "data": [card]}).encode()
        return json.dumps(self._state()).encode()

    def _state(self) -> dict[str, Any]:
        """What the engines' pages say, all at once: each program takes what it knows."""
        engine = self.engine
        return {
            "model_path": self.model, "served_model_name": self.model, "model_id": self.model, "is_generation": True,
            "max_total_num_tokens": self.costs.cache_tokens or 10**6, "tp_size": 1, "dp_size": 1, "version": "0.5.16",
            "max_running_requests": self.costs.batch, "status": "ok", "streams": len(self.pulse.streams),
            "load": engine.running + engine.waiting, "num_running_reqs": engine.running,
            "num_waiting_reqs": engine.waiting, "prompt_tokens": engine.prompt_tokens,
            "cached_tokens": engine.cached_tokens, "generated_tokens": engine.generated_tokens,
        }  # fmt: skip

    def _metrics(self) -> bytes:
        engine = self.engine
        found = {
            "sglang:num_running_reqs": engine.running, "sglang:num_queue_reqs": engine.waiting,
            "sglang:max_total_num_tokens": self.costs.cache_tokens or 10**6,
            "vllm:num_requests_running": engine.running, "vllm:num_requests_waiting": engine.waiting,
        }  # fmt: skip
        return "".join(f"# TYPE {name} gauge\n{name} {value}\n" for name, value in found.items()).encode()
