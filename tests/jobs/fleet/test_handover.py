"""When workers get their successors."""

from itertools import pairwise

import pytest

from slurminfer.jobs.fleet.rules import handover
from slurminfer.jobs.fleet.rules.actions import Submit
from slurminfer.jobs.fleet.rules.observed import Past, PoolForecast, Stage, Start

from .looks import HOUR, NOW, decided, member, plan

SHORT = plan(time_s=HOUR)


@pytest.mark.parametrize(
    ("past", "pool", "seconds"),
    [
        (Past(load_s=400.0, wait_s=400.0), SHORT, 1060.0),  # a quarter and a minute more
        (Past(load_s=300.0), SHORT, 435.0),
        (Past(), plan(time_s=600.0), 210.0),  # nobody knows how long it loads
        (Past(load_s=10.0), plan(time_s=1320.0), 110.0),  # a twelfth of its time, here more than half a minute more
        (Past(load_s=10.0), plan(time_s=200.0), 100.0),
        (Past(load_s=10.0), plan(), 7200.0),  # two hours are enough where the queue is short
        (Past(load_s=10.0, wait_s=9000.0), plan(), 11322.5),
    ],
)
def test_the_lead_covers_queue_and_loading(past, pool, seconds):
    assert handover.lead_s(past, pool.time_s) == seconds


def test_a_successor_serves_before_its_predecessor_begins_to_drain():
    one = member(0, ends_at=NOW + HOUR)
    (due,) = handover.due(SHORT, Past(load_s=400.0), [one]).values()
    assert due == NOW + HOUR - SHORT.drain_s - 560


def test_workers_that_end_together_get_their_successors_one_after_the_other():
    members = [member(number, ends_at=NOW + HOUR) for number in range(4)]
    due = sorted(handover.due(SHORT, Past(load_s=100.0), members).values())
    assert [later - earlier for earlier, later in pairwise(due)] == [130.0] * 3
    assert due[-1] == NOW + HOUR - SHORT.drain_s - 300.0


def test_no_worker_gets_a_successor_in_the_first_half_of_its_time():
    members = [member(number, ends_at=NOW + HOUR) for number in range(30)]
    due = handover.due(SHORT, Past(load_s=300.0), members)
    assert min(due.values()) == NOW + (HOUR - SHORT.drain_s) / 2


@pytest.mark.parametrize("stage", [Stage.PENDING, Stage.RETURNING, Stage.LEAVING])
def test_what_does_not_serve_needs_no_successor(stage):
    assert handover.due(SHORT, Past(), [member(0, stage, ends_at=NOW + 10)]) == {}


def test_without_a_walltime_there_is_no_successor():
    assert handover.due(plan(has_walltime=False), Past(), [member(0, ends_at=None)]) == {}


@pytest.mark.parametrize(
    ("workers", "past", "number"),
    [
        (1, Past(load_s=60.0), 1),
        (16, Past(load_s=60.0), 2),
        (17, Past(load_s=60.0), 3),
        (16, Past(load_s=60.0, wait_s=660.0), 8),  # half of the time until they end is needed for each
        (4, Past(load_s=60.0, wait_s=9 * HOUR), 4),
    ],
)
def test_as_many_are_replaced_at_the_same_time_as_it_takes(workers, past, number):
    assert handover.at_once(SHORT, past, [member(number, limit_s=HOUR) for number in range(workers)]) == number


def test_a_worker_that_leaves_has_no_successor_and_is_none():
    old, leaving = member(0), member(1, Stage.LEAVING, replaces="w-0")
    assert handover.successors([old, leaving]) == {}
    assert handover.successors([member(0, Stage.LEAVING), member(1, replaces="w-0")]) == {}
    assert handover.successors([old, member(2, replaces="w-0")]) == {"w-0": member(2, replaces="w-0")}


def test_a_worker_with_a_shorter_limit_than_its_pools_is_replaced_by_its_own():
    one = member(0, limit_s=HOUR, ends_at=NOW + HOUR)
    (due,) = handover.due(plan(), Past(load_s=100.0), [one]).values()
    assert due == NOW + HOUR - plan().drain_s - HOUR / 12
    assert handover.earliest(plan(), one) == NOW + (HOUR - plan().drain_s) / 2
    members = [member(number, limit_s=HOUR) for number in range(16)]
    assert handover.at_once(plan(), Past(load_s=60.0, wait_s=660.0), members) == 8


def test_a_worker_that_drains_for_most_of_its_time_gets_a_successor_before():
    one = member(0, limit_s=120.0, ends_at=NOW + 120)
    (due,) = handover.due(plan(drain_s=60.0), Past(load_s=10.0), [one]).values()
    assert due == NOW + 30


def test_a_queue_that_has_become_long_is_seen_before_it_hurts():
    old = member(0, ends_at=NOW + 7 * HOUR)
    queue = {"w": PoolForecast(asked_at=NOW, starts=(Start(time_s=24 * HOUR, wait_s=6 * HOUR),))}
    assert not decided(plan(1), old)[Submit]  # the workers before it have not waited at all
    (submit,) = decided(plan(1), old, forecasts=queue)[Submit]
    assert submit.replaces == "w-0"
    refused = {"w": PoolForecast(asked_at=NOW, starts=(Start(time_s=24 * HOUR, reason="no such QOS"),))}
    assert not decided(plan(1), old, forecasts=refused)[Submit]
    past = Past(load_s=100.0, wait_s=6 * HOUR)
    short = {"w": PoolForecast(asked_at=NOW, starts=(Start(time_s=24 * HOUR, wait_s=0.0),))}
    assert decided(plan(1), old, past=past, forecasts=short)[Submit]  # the longer of both counts
