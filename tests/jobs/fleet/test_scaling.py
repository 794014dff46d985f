"""How many workers the load needs."""

import pytest

from slurminfer.jobs.fleet.rules.observed import Demand, Past, Stage
from slurminfer.jobs.fleet.rules.scaling import Wanted, wanted

from .looks import NOW, member, plan

POOL = plan(2, fewest=0, most=8, target_queue_s=10.0, idle_s=300.0)


def number(workers: int, demand: Demand | None, ready: int | None = None, **past) -> int:
    members = [member(one) for one in range(workers if ready is None else ready)]
    return wanted(POOL, Past(wanted=workers, **past), demand, members, NOW).workers


@pytest.mark.parametrize(
    ("workers", "demand", "then"),
    [
        (2, Demand(in_flight=16, waiting=4, waited_s=9.0), 2),  # not yet for too long
        (2, Demand(in_flight=16, waiting=4, waited_s=11.0), 3),
        (2, Demand(in_flight=16, waiting=100, waited_s=11.0), 4),  # doubled at most
        (6, Demand(in_flight=48, waiting=100, waited_s=11.0), 8),  # the spec's bound
        (4, Demand(in_flight=8, waiting=4, waited_s=60.0), 4),  # enough will be there
        (0, Demand(waiting=1, waited_s=0.1), 1),
        (0, Demand(waiting=100, waited_s=0.1), 1),
        (0, Demand(), 0),
    ],
)
def test_more_workers(workers, demand, then):
    assert number(workers, demand) == then


@pytest.mark.parametrize(
    ("workers", "demand", "enough_s", "then"),
    [
        (4, Demand(in_flight=8), 299, 4),
        (4, Demand(in_flight=8), 301, 3),
        (8, Demand(in_flight=8), 301, 6),  # a quarter at once
        (2, Demand(in_flight=6), 301, 2),  # one alone would be too busy
        (2, Demand(in_flight=5), 301, 1),
        (1, Demand(idle_s=299.0), 301, 1),
        (1, Demand(idle_s=300.0), 301, 0),
    ],
)
def test_fewer_workers_when_that_would_have_been_enough_for_a_while(workers, demand, enough_s, then):
    assert number(workers, demand, enough_since=NOW - enough_s) == then


def test_the_time_for_which_fewer_would_be_enough_begins_anew_with_each_step_and_each_load():
    members, light = [member(one) for one in range(4)], Demand(in_flight=8)
    assert wanted(POOL, Past(wanted=4), light, members, NOW) == Wanted(4, NOW)
    assert wanted(POOL, Past(wanted=4, enough_since=NOW - 400), light, members, NOW).enough_since == NOW
    heavy = Demand(in_flight=30)
    assert wanted(POOL, Past(wanted=4, enough_since=NOW - 400), heavy, members, NOW) == Wanted(4)


def test_without_a_reading_of_the_load_nothing_changes():
    since = NOW - 1000
    assert wanted(POOL, Past(wanted=5, enough_since=since), None, [], NOW) == Wanted(5, since)


def test_the_number_begins_with_that_of_the_spec_and_keeps_to_its_bounds():
    assert wanted(POOL, Past(), None, [], NOW).workers == 2
    assert wanted(POOL, Past(wanted=20), None, [], NOW).workers == 8
    assert wanted(plan(3), Past(wanted=1), Demand(waiting=9, waited_s=99.0), [], NOW).workers == 3


def test_until_a_worker_has_said_what_it_can_do_only_one_is_started():
    waits = Demand(waiting=100, waited_s=60.0)
    loading = [member(0, Stage.STARTING)]
    assert wanted(POOL, Past(wanted=1), waits, loading, NOW).workers == 1
    assert wanted(POOL, Past(wanted=1, capacity=64), waits, loading, NOW).workers == 2
    assert wanted(POOL, Past(wanted=2, capacity=64), waits, loading, NOW).workers == 2


def test_a_pool_without_workers_waits_for_another_one_that_is_full_for_a_moment():
    def woken(waited_s):
        demand = Demand(waiting=1, waited_s=waited_s)
        return wanted(POOL, Past(wanted=0), demand, [], NOW, is_served_elsewhere=True).workers

    assert woken(1.0) == 0
    assert woken(11.0) == 1


def test_reasons_are_in_plain_words():
    assert wanted(POOL, Past(wanted=0), Demand(waiting=1), [], NOW).why == "1 request waits and there is no worker"
    why = wanted(POOL, Past(wanted=2), Demand(waiting=40, waited_s=12.0), [member(0)], NOW).why
    assert why == "40 requests wait, the oldest for 12 s (target 10 s)"
    why = wanted(POOL, Past(wanted=1, enough_since=NOW - 300), Demand(idle_s=400), [member(0)], NOW).why
    assert why == "no request for 300 s"


def test_the_last_worker_is_taken_away_when_idle_time_is_over_and_not_after_twice_that_time():
    """A look every ten seconds, from the last request on."""
    past = Past(wanted=1)
    for idle in range(0, 300, 10):
        found = wanted(POOL, past, Demand(idle_s=idle), [member(0)], NOW + idle)
        assert found.workers == 1
        past = Past(wanted=1, enough_since=found.enough_since)
    found = wanted(POOL, past, Demand(idle_s=300.0), [member(0)], NOW + 300)
    assert (found.workers, found.why) == (0, "no request for 300 s")


def test_a_pool_that_never_had_a_request_says_for_how_long_it_was_idle():
    past = Past(wanted=1, enough_since=NOW - 310)
    assert wanted(POOL, past, Demand(idle_s=float("inf")), [member(0)], NOW).why == "no request for 310 s"


SLEEPY = plan(1, fewest=0, most=2, idle_s=300.0)


@pytest.mark.parametrize(
    ("stage", "workers"), [(Stage.PENDING, 1), (Stage.STARTING, 1), (Stage.READY, 0), (Stage.RETURNING, 0)]
)
def test_a_worker_that_waits_or_loads_for_longer_than_idle_time_is_not_taken_away(stage, workers):
    past, idle = Past(wanted=1, enough_since=100.0), Demand(idle_s=400.0)
    assert wanted(SLEEPY, past, idle, [member(0, stage)], 500.0).workers == workers
    not_idle_yet = Past(wanted=1)  # its time begins when it is ready
    assert wanted(SLEEPY, not_idle_yet, idle, [member(0, stage)], 500.0).workers == 1


def test_a_capacity_of_nothing_that_a_damaged_record_has_counts_as_one():
    waits = Demand(waiting=4, waited_s=60.0)
    assert wanted(POOL, Past(wanted=1, capacity=0), waits, [], NOW).workers == 2
