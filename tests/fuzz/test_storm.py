"""Engine and router under a storm of random requests, good and bad, whose clients leave at any time."""

import os
import random
from functools import partial

import pytest

from ..support.waiting import eventually
from .attempts import Attempts
from .conftest import Program
from .storm import storm

pytestmark = [pytest.mark.process, pytest.mark.slow]

COUNT = 3000
SEED = int(os.environ.get("SLURMINFER_FUZZ_SEED") or random.SystemRandom().randrange(2**32))
_GROWTH = COUNT // 2 * (8 << 10)  # bytes that allocators may keep: 8 KiB for each request of the second half
_ENGINE = [f"slurminfer_engine_{name}" for name in ("running_requests", "waiting_requests", "kv_blocks_used")]
_ROUTER = ["slurminfer_router_worker_in_flight"]


def test_an_engine_lives_answers_and_gives_everything_back(engine: Program) -> None:
    survive(engine, _ENGINE)


def test_a_router_lives_answers_and_gives_everything_back(router: Program) -> None:
    survive(router, _ROUTER)


def survive(program: Program, gauges: list[str]) -> None:
    print(f"SLURMINFER_FUZZ_SEED={SEED}")
    said, attempts = program.complete(), Attempts(SEED, model="tiny", key=program.key)
    seen = storm(program.port, attempts, COUNT // 2)
    warm = program.resident()
    again = storm(program.port, attempts, COUNT // 2)
    print({status: seen.get(status, 0) + again.get(status, 0) for status in sorted(seen | again)})
    for gauge in gauges:
        eventually(partial(program.is_zero, gauge), gauge)
    assert program.complete() == said
    assert program.resident() - warm < _GROWTH
    assert "Traceback" not in program.log.read_text(encoding="utf-8")
    assert min(seen[200], seen[400]) > COUNT // 20, "good and bad requests are tried"
