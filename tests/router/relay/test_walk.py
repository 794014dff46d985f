"""Random walks of clients and workers leave nothing behind in a relay; tests/router/relay/walk.py walks for long."""

import pytest

from slurminfer.router.relay.workers import health

from .walk import SETTINGS, walk


@pytest.mark.parametrize("seed", range(len(SETTINGS)))
def test_nothing_is_left_of_a_storm(loop, seed, monkeypatch):
    monkeypatch.setattr(health, "DYING_PAUSE_S", 0.01)
    assert walk(loop, seed)
