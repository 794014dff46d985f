"""Quantizations in processes of their own, forked from one that has imported torch: starting one takes milliseconds."""

import os
import time
from pathlib import Path
from typing import Any
from unittest.mock import patch

from slurminfer.quant.awq import quantize as module
from slurminfer.quant.awq.layer import quantize_layer
from slurminfer.quant.awq.options import AwqOptions
from slurminfer.quant.awq.workspace import WHOLE, WorkShare

from ...support.forking import CONTEXT

TIMEOUT_S = 60


class Quantization:
    """A process that quantizes `model` into `out`; with `stuck_after` it gets no further than into the layer after."""

    def __init__(
        self, model: Path, out: Path, options: AwqOptions, part: WorkShare = WHOLE, stuck_after: int | None = None
    ) -> None:
        self._stuck = out.with_name(f"stuck-{part.index}")
        work = (model, out, options, part, stuck_after, self._stuck)
        self._process = CONTEXT.Process(target=_run, args=work, daemon=True)
        self._process.start()

    @property
    def pid(self) -> int | None:
        return self._process.pid

    def is_running(self) -> bool:
        return self._process.is_alive()

    def wait_until_stuck(self) -> None:
        """Until it is in the middle of the layer behind the last that it finishes."""
        deadline = time.monotonic() + TIMEOUT_S
        while not self._stuck.exists():
            assert self.is_running() and time.monotonic() < deadline
            time.sleep(0.01)

    def wait(self) -> int | None:
        """Its exit status; None if it goes on for too long."""
        self._process.join(TIMEOUT_S)
        return self._process.exitcode

    def kill(self) -> None:
        """End it with SIGKILL."""
        self._process.kill()
        self._process.join()
        self._stuck.unlink(missing_ok=True)


def _run(model: Path, out: Path, options: AwqOptions, part: WorkShare, stuck_after: int | None, stuck: Path) -> None:
    computed = 0

    def quantize_some(*args: Any) -> Any:
        nonlocal computed
        if computed == stuck_after:
            stuck.touch()
            time.sleep(TIMEOUT_S)
            os._exit(1)
        computed += 1
        return quantize_layer(*args)

    with patch.object(module, "quantize_layer", quantize_some), patch.object(module, "_POLL_S", 0.02):
        module.quantize(model, out, options, lambda *state: None, part)
