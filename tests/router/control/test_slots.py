"""Which life of a worker has which slot of the board."""

import pytest

from slurminfer.core.errors import RouterError
from slurminfer.router.control.slots import Slots


def test_a_life_keeps_its_slot_and_slots_are_taken_in_turn():
    slots = Slots(count=3, pause_s=60.0)
    assert [slots.slot(life) for life in "abab"] == [0, 1, 0, 1]
    slots.keep("b", lambda slot: True, now=0.0)
    slots.keep("b", lambda slot: True, now=60.0)
    assert [slots.slot(life) for life in "cd"] == [2, 0]


def test_a_slot_is_free_after_a_pause_and_when_nothing_is_counted_there():
    slots = Slots(count=1, pause_s=60.0)
    busy = {0}
    slots.slot("a")
    for now in (5.0, 64.9, 100.0):
        slots.keep([], lambda slot: slot not in busy, now)
        with pytest.raises(RouterError):
            slots.slot("b")
    busy.clear()
    slots.keep([], lambda slot: slot not in busy, 100.0)
    assert slots.slot("b") == 0
    with pytest.raises(RouterError):
        slots.slot("a")


def test_a_life_that_comes_back_within_the_pause_gets_another_slot():
    slots = Slots(count=2, pause_s=60.0)
    assert slots.slot("a") == 0
    slots.keep([], lambda slot: True, now=0.0)
    assert slots.slot("a") == 1
