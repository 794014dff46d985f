"""Who holds which blocks."""

import math
import random
from collections import OrderedDict

import pytest

from slurminfer.router.policies.owners import Owners


def blocks(seed, count=4):
    rng = random.Random(seed)
    return [rng.getrandbits(58) << 4 for _ in range(count)]


def held(owners, slot, prompt):
    """Leading blocks of a prompt that the worker holds."""
    bit = owners.bit(slot)
    return next((count for count, bits in owners.levels(prompt) if bits & bit), 0)


def test_levels_say_how_much_each_holds():
    owners, prompt = Owners(), blocks(1)
    owners.add(0, prompt, 0, math.inf)
    owners.add(7, [*prompt[:2], *blocks(2, 2)], 0, math.inf)
    assert owners.levels(prompt) == [(2, owners.bit(7)), (4, owners.bit(0))]
    assert owners.levels(blocks(3)) == [] and owners.levels([]) == []


def test_a_full_cache_drops_what_was_used_the_longest_ago_and_of_that_the_end():
    owners, old, new = Owners(), blocks(1), blocks(2)
    owners.add(0, old, 0, 6 * 256)
    owners.add(0, new, 0, 6 * 256)
    assert (held(owners, 0, old), held(owners, 0, new)) == (2, 4)
    owners.add(0, old[:2], 0, 6 * 256)
    owners.add(0, blocks(3, 2), 0, 6 * 256)
    assert (held(owners, 0, old), held(owners, 0, new)) == (2, 2), "what is used again stays"


def test_answers_and_ends_of_prompts_take_room_too():
    owners, prompt = Owners(), blocks(1)
    owners.add(0, prompt, 0, 6 * 256)
    owners.add(0, [], 5 * 256, 6 * 256)
    assert held(owners, 0, prompt) == 1


def test_the_table_is_bounded_and_leaves_nothing_behind():
    owners = Owners(most_entries=1000)
    for number in range(2000):
        owners.add(number % 5, blocks(number), 100, math.inf)
        assert len(owners) <= 1000
    assert len(owners._masks) <= 1000
    for slot in range(5):
        owners.forget(slot)
    for _ in range(20):
        owners.add(9, [], 0, 100)
    assert len(owners._masks) == 0


def test_a_new_life_in_the_same_slot_has_nothing():
    owners, prompt = Owners(), blocks(1, 1000)
    owners.add(3, prompt, 0, math.inf)
    owners.forget(3)
    assert owners.levels(prompt) == []
    owners.add(3, blocks(2), 0, math.inf)
    assert held(owners, 3, prompt) == 0 and held(owners, 3, blocks(2)) == 4
    for number in range(10):
        owners.add(4, blocks(10 + number), 0, math.inf)
    assert len(owners) == 4 + 1 + 10 * 5 and held(owners, 3, prompt) == 0


def test_relays_come_to_the_same_view():
    relays = [Owners(relay=index) for index in range(3)]
    for number in range(300):
        mine = relays[number % 3]
        mine.add(number % 4, blocks(number % 40), 300, 30 * 256)
        for key in mine.news():
            for other in relays:
                if other is not mine:
                    other.merge([key])
    views = [{(n, s): held(one, s, blocks(n)) for n in range(40) for s in range(4)} for one in relays]
    agree = sum(views[0][what] == views[1][what] == views[2][what] for what in views[0])
    assert agree >= 0.95 * len(views[0])
    assert sum(map(bool, views[0].values())) > 15


def test_only_what_others_do_not_know_is_told():
    owners, prompt = Owners(), blocks(1)
    owners.add(0, prompt, 0, math.inf)
    assert {key for key, _ in owners.news()} >= set(prompt)
    owners.add(0, prompt, 0, math.inf)
    assert all(key < 0 for key, _ in owners.news()), "only the end of the prompt is new"


def correct(owners, slot, expected, found, age=1.0):
    owners.correct(slot, expected, found, turn=owners.turn, age=age)


def test_an_engine_that_finds_less_than_expected_holds_less_than_was_thought():
    owners = Owners()
    for number in range(400):
        owners.add(0, blocks(number), 0, math.inf)
    assert held(owners, 0, blocks(0)) == 4
    for _ in range(20):
        correct(owners, 0, 64, 0)
    assert held(owners, 0, blocks(0)) < 4 and held(owners, 0, blocks(399)) == 4
    correct(owners, 5, 64, 0)  # of a worker that is not known


def test_the_age_of_what_is_missed_says_how_much_an_engine_holds():
    slow, fast = Owners(), Owners()
    for owners, age in ((slow, 0.9), (fast, 0.1)):
        for number in range(400):
            owners.add(0, blocks(number), 0, math.inf)
        correct(owners, 0, 64, 0, age)
    assert len(slow) == pytest.approx(0.95 * 2000, rel=0.01)
    assert len(fast) == pytest.approx(0.55 * 2000, rel=0.01)


@pytest.mark.parametrize("told", [math.inf, 400 * 256.0])
def test_the_model_of_a_cache_settles_at_the_size_that_the_engine_has(told):
    """Prompts are asked for again at random; the engine holds 50 of them. Told: nothing, or twice as much."""
    rng, owners = random.Random(3), Owners()
    engine: OrderedDict[int, None] = OrderedDict()
    prompts = [blocks(number) for number in range(200)]
    for _ in range(4000):
        number = min(int(rng.expovariate(1 / 40)), 199)
        prompt = prompts[number]
        there = held(owners, 0, prompt)
        age, turn = owners.age(0, prompt[there - 1])[0] if there else 0.0, owners.turn
        owners.add(0, prompt, 0, told)
        owners.correct(0, 64 * there, 256 if number in engine else 0, turn=turn, age=age)
        engine[number] = None
        engine.move_to_end(number)
        if len(engine) > 50:
            engine.popitem(last=False)
    assert 40 * 5 <= len(owners) <= 80 * 5  # four blocks and an end each


def test_what_may_not_be_computed_yet_is_not_missed():
    owners = Owners()
    for number in range(10):
        owners.add(0, blocks(number), 0, math.inf)
    assert owners.age(0, blocks(5)[0])[0] == 0.0
    owners.correct(0, 0, 0, turn=owners.turn - 4, age=0.0)
    assert owners.age(0, blocks(5)[0])[0] > 0 and owners.age(0, blocks(6)[0])[0] == 0.0
    owners.correct(0, 64, 0, turn=owners.turn, age=0.0)
    assert held(owners, 0, blocks(0)) == 4


def test_an_engine_that_finds_what_was_old_gets_its_room_back():
    owners = Owners()
    owners.add(0, blocks(0, 400), 0, 400 * 256)
    correct(owners, 0, 64, 0)
    assert held(owners, 0, blocks(0, 400)) < 400
    for _ in range(20):
        correct(owners, 0, 64, 64, age=0.5)
    owners.add(0, blocks(0, 400), 0, 400 * 256)
    assert held(owners, 0, blocks(0, 400)) < 399, "what was used lately says nothing"
    for _ in range(20):
        correct(owners, 0, 64, 64)
    owners.add(0, blocks(0, 400), 0, 400 * 256)
    assert held(owners, 0, blocks(0, 400)) >= 399


def test_an_engine_that_finds_more_than_it_says_that_it_holds_is_believed():
    owners = Owners()
    for number in range(200):
        owners.add(0, blocks(number), 0, 40 * 256)
        correct(owners, 0, 0, 1000)
    assert held(owners, 0, blocks(150)) == 4
    for number in range(200, 400):
        owners.add(1, blocks(number), 0, 40 * 256)
        correct(owners, 1, 256, 256)
    assert held(owners, 1, blocks(350)) == 0


def test_room_that_is_learned_follows_what_the_engine_says():
    owners = Owners()
    owners.add(0, blocks(0, 100), 0, 100 * 256)
    for _ in range(10):
        correct(owners, 0, 64, 0)
    owners.add(0, blocks(1, 100), 0, 200 * 256)
    owners.add(0, blocks(1, 100), 0, 200 * 256)
    assert 80 < held(owners, 0, blocks(1, 100)) + held(owners, 0, blocks(0, 100)) < 140


def test_how_long_a_block_was_not_used_is_relative_to_what_a_full_cache_keeps():
    owners = Owners()
    for number in range(10):
        owners.add(0, blocks(number, 10), 0, 200 * 256)
    half_full = owners.age(0, blocks(0, 10)[0])[1]
    for number in range(10, 40):
        owners.add(0, blocks(number, 10), 0, 200 * 256)
    assert half_full == pytest.approx(0.5, abs=0.05)
    assert owners.age(0, blocks(39, 10)[0])[1] == 0.0
    age, age_in_full = owners.age(0, blocks(29, 10)[0])
    assert age == 0.0 and age_in_full == pytest.approx(0.5, abs=0.05), "nothing was answered"
    owners.add(1, blocks(0, 10), 0, math.inf)
    owners.add(1, blocks(1, 10), 0, math.inf)
    assert owners.age(1, blocks(0, 10)[0])[1] == 0.0, "it may hold any number"


def test_workers_that_do_not_say_what_they_hold_are_taken_to_hold_what_another_one_holds():
    owners = Owners()
    for slot, says in ((0, math.inf), (1, math.inf), (2, 10_000 * 256)):
        for number in range(400):
            owners.add(slot, blocks(number), 0, says)
    correct(owners, 0, 64, 0)
    assert [held(owners, slot, blocks(10)) for slot in range(3)] == [0, 0, 4]
    before = len(owners)
    correct(owners, 0, 64, 0)
    assert before - len(owners) < 0.06 * before, "what was learned first is a guess for the others, not what came later"
    assert held(owners, 1, blocks(30)) == 4
