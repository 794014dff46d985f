"""A few seconds of the benchmark's chaos: real relays before stub workers, all in processes of their own."""

from pathlib import Path

import msgspec
import pytest

from benchmarks.router import chaos
from benchmarks.router.ours import ours
from benchmarks.router.targets import OURS

pytestmark = pytest.mark.process


def test_nothing_is_lost_or_wrong_while_workers_and_relays_die(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chaos, "STREAMS", 24)
    monkeypatch.setattr(chaos, "WHOLE", 4)
    monkeypatch.setattr(chaos, "REPLACED_AFTER_S", 0.5)
    monkeypatch.setattr(chaos, "RELAY_EVERY_S", 2.5)
    monkeypatch.setattr(chaos, "BROKEN_S", 3.0)
    monkeypatch.setattr(chaos, "_COSTS", msgspec.structs.replace(chaos._COSTS, step_s=0.02))
    found = chaos.run(tmp_path, {OURS: ours}, 6.0, kill_every_s=1.5)[OURS]
    assert {verdict: found[verdict] for verdict in ("wrong", "silent_cuts", "lost")} == {
        "wrong": 0, "silent_cuts": 0, "lost": 0,
    }, found["reasons"]  # fmt: skip
    assert found["right"] > 20 and found["killed"] >= 2 and found["relays_killed"] >= 1
