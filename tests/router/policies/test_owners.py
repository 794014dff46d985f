"""Who holds which blocks."""

import math
import random

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


def test_an_engine_that_finds_less_than_expected_holds_less_than_was_thought():
    owners = Owners()
    for number in range(400):
        owners.add(0, blocks(number), 0, math.inf)
    assert held(owners, 0, blocks(0)) == 4
    for _ in range(20):
        owners.correct(0, 64, 0)
    assert held(owners, 0, blocks(0)) < 4 and held(owners, 0, blocks(399)) == 4
    owners.correct(5, 64, 0)  # of a worker that is not known


def test_an_engine_that_finds_what_is_expected_gets_its_room_back():
    owners = Owners()
    owners.add(0, blocks(0, 400), 0, 400 * 256)
    owners.correct(0, 64, 0)
    assert held(owners, 0, blocks(0, 400)) < 400
    for _ in range(20):
        owners.correct(0, 64, 64)
    owners.add(0, blocks(0, 400), 0, 400 * 256)
    assert held(owners, 0, blocks(0, 400)) >= 399


def test_an_engine_that_finds_more_than_it_says_that_it_holds_is_believed():
    owners = Owners()
    for number in range(200):
        owners.add(0, blocks(number), 0, 40 * 256)
        owners.correct(0, 0, 1000)
    assert held(owners, 0, blocks(150)) == 4
    for number in range(200, 400):
        owners.add(1, blocks(number), 0, 40 * 256)
        owners.correct(1, 256, 256)
    assert held(owners, 1, blocks(350)) == 0


def test_room_that_is_learned_follows_what_the_engine_says():
    owners = Owners()
    owners.add(0, blocks(0, 100), 0, 100 * 256)
    for _ in range(10):
        owners.correct(0, 64, 0)
    owners.add(0, blocks(1, 100), 0, 200 * 256)
    owners.add(0, blocks(1, 100), 0, 200 * 256)
    assert 80 < held(owners, 0, blocks(1, 100)) + held(owners, 0, blocks(0, 100)) < 140
