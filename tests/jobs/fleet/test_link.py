"""How long the job of a new worker is."""

import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slurminfer.jobs.fleet.rules.actions import Submit
from slurminfer.jobs.fleet.rules.link import Outlook, candidates, choose, overhead_s, slurm_time
from slurminfer.jobs.fleet.rules.observed import Past, PoolForecast, Stage, Start

from .looks import HOUR, NOW, decided, member, plan, reserved

EXAMPLES = settings(max_examples=200, derandomize=True)
FREE = plan(time_min_s=1.5 * HOUR)
PAST = Past(load_s=540.0)  # 10 minutes of each job with the time to drain


def forecast(*waits: float | None, pool: Any = FREE, asked_at: float = NOW) -> PoolForecast:
    """What Slurm says for each candidate, the longest first; None where it would refuse."""
    limits = candidates(pool, pool.longest_s)
    starts = (
        Start(time_s=limit, wait_s=wait, reason="" if wait is not None else "MaxWall")
        for limit, wait in zip(limits, waits, strict=True)
    )
    return PoolForecast(asked_at=asked_at, starts=tuple(starts))


def outlook(*waits: float | None, **fields: Any) -> Outlook:
    given = {"plan": FREE, "past": PAST, "now": NOW, "forecast": forecast(*waits) if waits else None}
    return Outlook(**{**given, **fields})


def test_candidates_are_a_series_from_the_longest_to_the_shortest():
    assert [limit / HOUR for limit in candidates(FREE, FREE.longest_s)] == [24, 12, 6, 3, 1.5]
    assert candidates(plan(), 5 * HOUR) == (5 * HOUR,)
    assert candidates(FREE, 2 * HOUR) == (2 * HOUR, 1.5 * HOUR)
    assert candidates(FREE, 1.5 * HOUR) == (1.5 * HOUR,) and candidates(FREE, HOUR) == ()


@EXAMPLES
@given(st.integers(1, 400_000), st.integers(1, 400_000), st.one_of(st.none(), st.integers(1, 500_000)))
def test_candidates_keep_the_bounds(first, second, allowed):
    shortest, longest = sorted((first, second))
    pool = plan(time_s=float(longest), time_min_s=float(shortest), allowed_s=allowed)
    found = candidates(pool, pool.longest_s)
    assert 1 <= len(found) <= 5 and sorted(set(found), reverse=True) == list(found)
    assert found[-1] == shortest and found[0] <= longest and (allowed is None or found[0] <= max(allowed, shortest))


@pytest.mark.parametrize(
    ("waits", "hours"),
    [
        ((), 24),  # nobody knows
        ((0, 0, 0, 0, 0), 24),
        ((5 * HOUR, 5 * HOUR, 5 * HOUR, 5 * HOUR, 5 * HOUR), 24),
        ((5 * HOUR, 5 * HOUR, 180, 180, 180), 6),  # 0.82, 0.7, 0.96, 0.93, 0.86
        ((HOUR / 4, 0, 0, 0, 0), 12),  # 0.983 and 0.986
        ((HOUR / 6, 0, 0, 0, 0), 24),
        ((40 * HOUR, 30 * HOUR, 20 * HOUR, 20 * HOUR, 0), 1.5),
        ((None, None, 3 * HOUR, 0, 0), 3),
        ((None, None, None, None, None), 24),  # then Slurm says why
    ],
)
def test_the_largest_share_of_time_that_is_served(waits, hours):
    found = choose(outlook(*waits))
    assert found is not None and found.time_s == hours * HOUR


def test_of_equal_shares_the_longer_one():
    pool = plan(time_s=4 * HOUR, time_min_s=2 * HOUR, drain_s=0.0)
    found = choose(outlook(plan=pool, past=Past(load_s=0.0), forecast=forecast(0, 0, pool=pool)))
    assert found is not None and found.time_s == 4 * HOUR


def test_while_its_predecessor_serves_a_successor_may_wait():
    waits = (5 * HOUR, 5 * HOUR, 0, 0, 0)
    old = member(0, ends_at=NOW + 5 * HOUR + FREE.drain_s)
    for later, hours in ((0.0, 24), (1.0 * HOUR, 6)):
        found = choose(outlook(*waits, now=NOW + later, forecast=forecast(*waits, asked_at=NOW + later)), old)
        assert found is not None and found.time_s == hours * HOUR


def test_a_successor_outlives_its_predecessor():
    found = choose(outlook(9 * HOUR, 9 * HOUR, 9 * HOUR, 0, 0), member(0, ends_at=NOW + 2 * HOUR))
    assert found is not None and found.time_s == 3 * HOUR


def test_a_forecast_gets_older():
    assert outlook(HOUR, HOUR, 0, 0, 0, now=NOW + 600).wait_s(24 * HOUR) == HOUR - 600
    assert outlook(HOUR, HOUR, 0, 0, 0, now=NOW + 600).wait_s(6 * HOUR) == 0
    assert outlook(HOUR, 300.0, 0, 0, 0).wait_s(13 * HOUR) == HOUR  # as the next longer one that was asked for


def test_before_a_maintenance_candidates_begin_with_what_ends_before():
    pool = outlook(99 * HOUR, 5 * HOUR, 0, 0, 0, reserved=reserved(NOW + 8 * HOUR)["w"])
    assert pool.longest_s == 7 * HOUR
    found = choose(pool)
    assert found is not None and 1.5 * HOUR <= found.time_s < 7 * HOUR
    at_eight = time.strftime("%Y-%m-%d %H:%M", time.localtime(NOW + 8 * HOUR))
    assert found.why.endswith(f"; the nodes are reserved from {at_eight} on")
    fixed = choose(outlook(plan=plan(), reserved=reserved(NOW + 8 * HOUR)["w"]))
    assert fixed is not None and fixed.why == f"07:00:00; the nodes are reserved from {at_eight} on"
    unbounded = choose(outlook(plan=plan(), reserved=reserved(NOW + 48 * HOUR)["w"]))
    assert unbounded is not None and unbounded.why == ""
    assert choose(outlook(reserved=reserved(NOW + HOUR)["w"])) is None  # the shortest would not end before
    assert choose(outlook(plan=plan(), reserved=reserved(NOW + HOUR)["w"])) is not None


@pytest.mark.parametrize(
    ("waits", "waited_s", "accepted"),
    [
        ((), 0.0, 1.5 * HOUR),  # nobody knows how long it waits
        ((0, 0, 0, 0, 0), 0.0, None),
        (
            (6 * HOUR, 6 * HOUR, 6 * HOUR, 6 * HOUR, 6 * HOUR),
            0.0,
            1.5 * HOUR,
        ),  # 10 min of 1.5 h are less than 6 h of 30
        ((HOUR / 2, HOUR / 2, HOUR / 2, HOUR / 2, HOUR / 2), 0.0, 6 * HOUR + 480),  # 40 min of 24.5 h are lost
        ((0, 0, 0, 0, 0), HOUR / 2, 6 * HOUR + 480),  # the workers before it have waited
    ],
)
def test_a_job_accepts_to_be_shortened_where_that_is_worth_more_than_its_wait(waits, waited_s, accepted):
    found = choose(outlook(*waits, past=Past(load_s=540.0, wait_s=waited_s)))
    assert found is not None and (found.time_s, found.time_min_s) == (24 * HOUR, accepted)


def test_a_successor_that_may_wait_is_not_shortened():
    old = member(0, ends_at=NOW + 2 * HOUR)
    found = choose(outlook(HOUR, HOUR, HOUR, HOUR, HOUR), old)
    assert found is not None and found.time_min_s is None
    found = choose(outlook(), old)  # nor below what its predecessor has left
    assert found is not None and found.time_min_s == 2 * HOUR + 300


def test_a_fixed_walltime_is_not_shortened():
    found = choose(outlook(plan=plan()))
    assert found is not None and found.time_min_s is None


WAITS = st.lists(st.floats(0, 200 * HOUR), min_size=5, max_size=5).map(lambda waits: tuple(sorted(waits, reverse=True)))


@EXAMPLES
@given(WAITS, st.floats(0, 300 * HOUR), st.one_of(st.none(), st.floats(-HOUR, 20 * HOUR)))
def test_never_beyond_the_bounds(waits, allowed, left):
    pool = plan(time_min_s=1.5 * HOUR, allowed_s=allowed)
    old = None if left is None else member(0, ends_at=NOW + left)
    before = None if left is None else reserved(NOW + 2 * left)["w"]
    found = choose(outlook(plan=pool, forecast=forecast(*waits), reserved=before), old)
    if found is not None:
        assert 1.5 * HOUR <= found.time_s <= max(1.5 * HOUR, min(24 * HOUR, allowed))
        assert before is None or NOW + found.time_s <= before.starts_at
        assert found.time_min_s is None or 1.5 * HOUR <= found.time_min_s < found.time_s


@EXAMPLES
@given(WAITS, st.floats(0, 40 * HOUR), st.floats(0, HOUR))
def test_a_longer_queue_for_all_and_a_longer_load_never_make_links_shorter(waits, more, load):
    before, after = choose(outlook(*waits)), choose(outlook(*(wait + more for wait in waits)))
    assert before is not None and after is not None and after.time_s >= before.time_s
    slow = choose(outlook(*waits, past=Past(load_s=(PAST.load_s or 0.0) + load)))
    assert slow is not None and slow.time_s >= before.time_s


@EXAMPLES
@given(WAITS, st.floats(0, 40 * HOUR))
def test_a_longer_wait_for_the_longest_never_makes_links_longer(waits, more):
    before, after = choose(outlook(*waits)), choose(outlook(waits[0] + more, *waits[1:]))
    assert before is not None and after is not None and after.time_s <= before.time_s


def test_the_decision_says_why():
    def why(*waits: float | None, pool=FREE) -> str:
        seen = {"w": forecast(*waits, pool=pool)} if waits else {}
        (submit,) = decided(pool, member(0), member(1, Stage.PENDING), pinned=3, past=PAST, forecasts=seen)[Submit]
        return submit.why

    assert why(5 * HOUR, 5 * HOUR, 180, 180, 180) == (
        "1 worker missing; 06:00:00 of up to 1-00:00:00: Slurm forecasts a start in 3 min, against 5 h for the longest"
    )
    assert why(0, 0, 0, 0, 0) == "1 worker missing; 1-00:00:00: Slurm forecasts a start in 0 s"
    assert why(None, 90, 90, 90, 90).endswith("12:00:00 of up to 1-00:00:00: "
        "Slurm forecasts a start in 90 s, and would refuse the longest")  # fmt: skip
    assert why(None, None, None, None, None).endswith("1-00:00:00: Slurm would refuse any")
    assert why() == "1 worker missing" == why(0, pool=plan())


def test_overhead_is_loading_and_draining():
    assert overhead_s(FREE, PAST) == 600.0 and overhead_s(FREE, Past()) == 180.0


def test_times_as_slurm_writes_them():
    assert [slurm_time(seconds) for seconds in (60, 5430, 36 * HOUR)] == ["00:01:00", "01:30:30", "1-12:00:00"]
