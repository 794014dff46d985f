"""Which worker each policy chooses."""

import os
from typing import get_args, get_type_hints

import pytest

from slurminfer.core.errors import SpecError
from slurminfer.core.spec.router import RouterSpec
from slurminfer.router.policies import POLICIES, policy_named

from ...support.policy_workers import Stub, choose, request

ALL = pytest.mark.parametrize("name", POLICIES)


def chosen(policy, workers, *, times, asked=None):
    """Slots of the workers that get requests, none of which is answered."""
    slots, workers_by_slot = [], {worker.slot: worker for worker in workers}
    for turn in range(1, times + 1):
        one = asked or request()
        worker = workers_by_slot[choose(policy, one, workers).worker.slot]
        policy.sent(one, worker)
        worker.in_flight += 1
        worker.turn = max(other.turn for other in workers) + turn
        slots.append(worker.slot)
    return slots


def test_the_spec_has_the_same_names():
    assert set(get_args(get_type_hints(RouterSpec)["policy"])) == set(POLICIES)


def test_an_unknown_name_is_an_error_that_lists_them():
    with pytest.raises(SpecError, match="cache_aware, least_load"):
        policy_named("magic")


@ALL
def test_nobody_to_choose(name):
    assert policy_named(name).choose(request(b"x" * 1000, session="s"), []) is None


@ALL
def test_the_only_one_is_chosen_whatever_its_load(name):
    one = Stub(5, in_flight=100)
    route = choose(policy_named(name), request(b"x" * 1000, session="s"), [one])
    assert route.worker is one


@ALL
def test_a_policy_forgets_and_has_news_for_any_worker(name):
    policy, one = policy_named(name, 1), Stub(0)
    route = choose(policy, request(b"x" * 1000), [one])
    policy.sent(request(b"x" * 1000), one)
    policy_named(name).merge(policy.news())
    policy.corrected(route, 10)
    policy.forget(0)
    policy.forget(0)


@pytest.mark.parametrize("name", ["least_load", "cache_aware", "round_robin"])
def test_equals_take_turns(name):
    assert sorted(chosen(policy_named(name), [Stub(slot) for slot in range(3)], times=6)) == [0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize("name", ["least_load", "cache_aware", "power_of_two"])
def test_load_is_relative_to_capacity(name):
    small, large = Stub(0, in_flight=2, capacity=4), Stub(1, in_flight=6, capacity=64)
    assert choose(policy_named(name), request(), [small, large]).worker is large


@pytest.mark.parametrize("name", ["least_load", "cache_aware", "power_of_two"])
def test_a_worker_that_comes_back_gets_little_at_first(name):
    back, other = Stub(0, capacity=32, ramp=0.05), Stub(1, capacity=32)
    slots = chosen(policy_named(name), [back, other], times=20)
    assert 1 <= slots.count(0) <= 2


def test_power_of_two_takes_the_less_loaded_of_two_and_so_never_the_worst():
    workers = [Stub(slot, in_flight=slot) for slot in range(4)]
    policy = policy_named("power_of_two")
    slots = [choose(policy, request(), workers).worker.slot for _ in range(200)]
    assert set(slots) == {0, 1, 2}


def test_a_session_stays_unless_its_worker_goes_or_is_overloaded():
    policy, workers = policy_named("session"), [Stub(slot) for slot in range(8)]
    homes = {number: choose(policy, request(session=f"s{number}"), workers).worker.slot for number in range(200)}
    assert len(set(homes.values())) == 8
    rest = [worker for worker in workers if worker.slot != 3]
    for number, home in homes.items():
        moved = choose(policy, request(session=f"s{number}"), rest).worker.slot
        assert moved == home or home == 3
    workers[homes[0]].in_flight = 4
    assert choose(policy, request(session="s0"), workers).worker.slot != homes[0]


def test_without_a_session_the_load_decides():
    assert choose(policy_named("session"), request(), [Stub(0, in_flight=1), Stub(1)]).worker.slot == 1


def test_what_is_cached_decides_while_the_load_is_alike():
    policy, workers, prompt = (
        policy_named("cache_aware"),
        [Stub(slot, capacity=32) for slot in range(4)],
        os.urandom(8192),
    )
    workers[2].in_flight = 1
    policy.sent(request(prompt), workers[2])
    route = choose(policy, request(prompt + b"and more"), workers)
    assert (route.worker.slot, route.reason, route.cached_tokens) == (2, "cache", 2048)
    workers[2].in_flight = 28
    route = choose(policy, request(prompt), workers)
    assert (route.worker.slot != 2, route.reason, route.cached_tokens) == (True, "spread", 0)


def test_the_longer_beginning_decides():
    policy, workers, prompt = (
        policy_named("cache_aware"),
        [Stub(slot, capacity=32) for slot in range(3)],
        os.urandom(8192),
    )
    policy.sent(request(prompt[:2048]), workers[0])
    policy.sent(request(prompt[:4096]), workers[1])
    assert choose(policy, request(prompt), workers).worker.slot == 1


def test_a_lost_worker_is_no_owner():
    policy, workers, prompt = (
        policy_named("cache_aware"),
        [Stub(slot, capacity=32) for slot in range(3)],
        os.urandom(8192),
    )
    policy.sent(request(prompt), workers[1])
    policy.forget(1)
    assert choose(policy, request(prompt), workers).reason == "load"


def test_one_hot_prompt_makes_all_workers_busy():
    policy, workers = policy_named("cache_aware"), [Stub(slot, capacity=16) for slot in range(4)]
    slots = chosen(policy, workers, times=56, asked=request(os.urandom(8192)))
    assert max(slots.count(slot) for slot in range(4)) <= 20
    assert min(slots.count(slot) for slot in range(4)) >= 6


def test_what_another_relay_has_sent_is_known():
    here, there = policy_named("cache_aware", 0), policy_named("cache_aware", 1)
    workers, prompt = [Stub(slot, capacity=32) for slot in range(4)], os.urandom(8192)
    there.sent(request(prompt), workers[3])
    here.merge(there.news())
    assert choose(here, request(prompt), workers).worker.slot == 3
    assert there.news() == []


@pytest.mark.parametrize("count", [17, 256])
def test_of_many_workers_the_owner_is_found_and_all_get_something(count):
    policy, workers, prompt = (
        policy_named("cache_aware"),
        [Stub(slot, capacity=32) for slot in range(count)],
        os.urandom(8192),
    )
    policy.sent(request(prompt), workers[count - 2])
    assert choose(policy, request(prompt), workers).worker.slot == count - 2
    slots = chosen(policy, workers, times=count * 3)
    assert max(slots.count(slot) for slot in range(count)) <= 6
    assert sum(slots.count(slot) == 0 for slot in range(count)) <= count // 50


def test_a_prompt_that_nobody_has_goes_where_there_is_room():
    policy = policy_named("cache_aware")
    workers = [Stub(slot, capacity=32, cache_tokens=10_000) for slot in range(2)]
    prompts = [os.urandom(16_384) for _ in range(3)]
    for _ in range(10):  # beginnings are found again, so that keeping them is worth something
        for slot, prompt in ((0, prompts[0]), (0, prompts[1])):
            choose(policy, request(prompt), workers)
            policy.sent(request(prompt), workers[slot])
    workers[1].turn = 5
    assert choose(policy, request(prompts[2]), workers).worker.slot == 1


@pytest.mark.parametrize(("prompts", "reason"), [(8, "cache"), (1, "spread")])
def test_a_copy_is_made_only_where_it_displaces_what_nobody_asks_for(prompts, reason):
    """Eight prompts fill the caches of two workers; one leaves room. The owner has prompts to compute first."""
    policy = policy_named("cache_aware")
    workers = [Stub(slot, capacity=32, cache_tokens=9000) for slot in range(2)]
    asked = [request(os.urandom(8192)) for _ in range(prompts)]
    for _ in range(20):
        for one in asked:
            policy.sent(one, choose(policy, one, workers).worker)
    owner = workers[choose(policy, asked[0], workers).worker.slot]
    owner.pending_tokens, owner.in_flight = 6000, 4
    assert choose(policy, asked[0], workers).reason == reason
