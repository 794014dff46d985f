"""The native engine under a storm of random requests, good and bad, whose clients leave at any time."""

import itertools
import os
import random
from functools import partial

import pytest

from ..support.waiting import eventually
from .attempts import Attempts
from .conftest import KEY, Program
from .storm import storm

pytestmark = [pytest.mark.process, pytest.mark.slow]

COUNT = 10_000
SEED = int(os.environ.get("SLURMINFER_FUZZ_SEED") or random.SystemRandom().randrange(2**32))
_GROWTH = 48 << 20  # bytes that allocators may keep


def test_it_lives_answers_and_gives_everything_back(engine: Program) -> None:
    print(f"SLURMINFER_FUZZ_SEED={SEED}")
    said, attempts = engine.complete(), Attempts(SEED, model="tiny", key=KEY)
    seen = storm(engine.port, itertools.islice(attempts, COUNT // 2), COUNT // 2)
    warm = engine.resident()
    again = storm(engine.port, attempts, COUNT // 2)
    print({status: seen.get(status, 0) + again.get(status, 0) for status in sorted(seen.keys() | again)})
    for name in ("running_requests", "waiting_requests", "kv_blocks_used"):
        eventually(partial(engine.is_zero, f"slurminfer_engine_{name}"), name)
    assert engine.complete() == said
    assert engine.resident() - warm < _GROWTH
    assert seen[200] > COUNT // 20 and seen[400] > COUNT // 20, "both good and bad requests are tried"
