"""Which workers are submitted, drained and cancelled."""

import msgspec
import pytest

from slurminfer.jobs.fleet.rules.actions import Cancel, Drain, Submit, Wait, Want
from slurminfer.jobs.fleet.rules.decide import SILENT_S, decide
from slurminfer.jobs.fleet.rules.desired import Desired
from slurminfer.jobs.fleet.rules.observed import Demand, Observed, Past, PoolForecast, Stage, Start
from slurminfer.jobs.fleet.rules.pool import HUNG_S

from .looks import HOUR, NOW, by_kind, decided, ended, look, member, plan, reserved


def workers(actions):
    return [action.worker for action in actions]


def test_nothing_is_done_where_the_scheduler_could_not_be_asked():
    assert decide(Desired((plan(5),)), Observed(members=None), NOW) == []


def test_a_fleet_that_is_as_it_should_be_is_left_alone():
    assert decide(Desired((plan(2),)), look(member(0), member(1), past=Past(wanted=2)), NOW) == []


@pytest.mark.parametrize("stage", [Stage.PENDING, Stage.STARTING, Stage.READY, Stage.RETURNING])
def test_a_worker_counts_in_every_stage_but_one(stage):
    assert not decided(plan(1), member(0, stage))[Submit]


def test_a_worker_that_leaves_is_replaced():
    (submit,) = decided(plan(1), member(0, Stage.LEAVING, since=NOW))[Submit]
    assert submit == Submit(pool="w", time_s=24 * HOUR, why="1 worker missing")


def test_at_most_so_many_jobs_wait_in_the_queue_and_twenty_are_submitted_at_once():
    assert len(decided(plan(100))[Submit]) == 10
    assert len(decided(plan(100, most_pending=3), member(0, Stage.PENDING))[Submit]) == 2
    pools = tuple(plan(100, name=f"p{number}") for number in range(4))
    assert len(by_kind(decide(Desired(pools), Observed(members=()), NOW))[Submit]) == 20


# Hand-over.


def test_a_worker_whose_time_ends_gets_a_successor():
    (submit,) = decided(plan(1), member(0, ends_at=NOW + HOUR))[Submit]
    assert submit.replaces == "w-0" and submit.why == "the time of w-0 ends in 3600 s"
    assert not decided(plan(1), member(0, ends_at=NOW + HOUR), member(1, Stage.PENDING, replaces="w-0"))[Submit]


def test_a_worker_goes_when_its_successor_has_served_for_a_moment():
    old = member(0, ends_at=NOW + HOUR)
    for since, drained in ((NOW - 4, []), (NOW - 5, ["w-0"])):
        assert workers(decided(plan(1), old, member(1, replaces="w-0", since=since))[Drain]) == drained
    assert not decided(plan(1), old, member(1, Stage.STARTING, replaces="w-0"))[Drain]


@pytest.mark.parametrize("fault", ["hung_since", "silent_since"])
def test_a_worker_stays_while_its_successor_is_not_well(fault):
    successor = msgspec.structs.replace(member(1, replaces="w-0"), **{fault: NOW - 10})
    assert not decided(plan(1), member(0, ends_at=NOW + HOUR), successor)[Drain]


def test_a_worker_whose_successor_serves_stays_while_fewer_serve_than_are_wanted():
    old, successor = member(0, ends_at=NOW + HOUR), member(1, replaces="w-0")
    assert not decided(plan(2), old, successor, member(2, Stage.STARTING))[Drain]
    assert workers(decided(plan(2), old, successor, member(2))[Drain]) == ["w-0"]


def test_a_predecessor_that_is_back_in_the_queue_is_cancelled():
    found = decided(plan(1), member(0, Stage.PENDING), member(1, replaces="w-0"))
    assert workers(found[Cancel]) == ["w-0"] and not found[Drain]


def test_a_worker_that_produces_no_token_gets_a_successor_and_goes_when_that_serves():
    assert not decided(plan(1), member(0, hung_since=NOW - HUNG_S + 1))[Submit]
    hung = member(0, hung_since=NOW - HUNG_S)
    (submit,) = decided(plan(1), hung)[Submit]
    assert submit.replaces == "w-0" and submit.why == "w-0 has produced no token for 120 s"
    assert workers(decided(plan(1), hung, member(1, replaces="w-0"))[Drain]) == ["w-0"]


def test_not_all_are_replaced_at_once():
    members = [member(number, ends_at=NOW + 600) for number in range(16)]
    assert len(decided(plan(16), *members)[Submit]) == 2


# Fewer workers.


def test_workers_that_do_not_serve_go_first_then_those_that_end_first():
    there = [
        member(0),
        member(1, ends_at=NOW + 10 * HOUR),
        member(2, Stage.STARTING),
        member(3, Stage.PENDING),
        member(4, hung_since=NOW - 10),
    ]
    ended_ones = [
        workers(found[Cancel]) + workers(found[Drain])
        for number in range(5)
        for found in [decided(plan(number), *there)]
    ]
    assert [set(one) for one in ended_ones] == [
        {"w-0", "w-1", "w-2", "w-3", "w-4"},
        {"w-1", "w-2", "w-3", "w-4"},
        {"w-2", "w-3", "w-4"},
        {"w-2", "w-3"},
        {"w-3"},
    ]


def test_a_pair_of_which_one_serves_outlives_a_job_that_waits():
    there = [member(0, Stage.RETURNING), member(1, replaces="w-0", since=NOW), member(2, Stage.PENDING)]
    found = decided(plan(1), *there)
    assert workers(found[Cancel]) == ["w-2"] and not found[Drain]


def test_a_worker_that_is_not_wanted_goes_with_its_successor():
    found = decided(plan(0), member(0), member(1, Stage.PENDING, replaces="w-0"))
    assert workers(found[Drain]) == ["w-0"] and workers(found[Cancel]) == ["w-1"]


def test_a_number_that_a_user_has_asked_for_counts_more_than_the_load():
    pool = plan(1, fewest=0, most=4)
    assert len(decided(pool, pinned=3)[Submit]) == 3
    assert workers(decided(pool, member(0), pinned=0, demand=Demand(in_flight=5))[Drain]) == ["w-0"]


# Things that do not obey, or do not answer.


@pytest.mark.parametrize(("age", "is_cancelled"), [(179.0, False), (181.0, True)])
def test_a_worker_that_was_told_to_end_and_has_not_is_cancelled(age, is_cancelled):
    found = decided(plan(1), member(0, Stage.LEAVING, since=NOW - age), member(1))
    assert workers(found[Cancel]) == ["w-0"] * is_cancelled


def test_the_predecessor_of_a_router_serves_to_its_end():
    assert not decided(plan(1, obeys=False), member(0, Stage.LEAVING, since=NOW - 9 * HOUR), member(1))[Cancel]


def test_a_worker_whose_agent_is_silent_is_cancelled_and_replaced():
    silent = member(0, silent_since=NOW - SILENT_S)
    found = decided(plan(3), silent, member(1), member(2))
    assert workers(found[Cancel]) == ["w-0"] and len(found[Submit]) == 1
    assert not decided(plan(1), member(0, silent_since=NOW - SILENT_S + 1))[Cancel]


def test_where_most_agents_are_silent_nothing_is_done():
    silent = [member(number, silent_since=NOW - HOUR) for number in range(3)]
    there = [*silent, member(3), member(4)]
    assert decide(Desired((plan(5),)), look(*there, past=Past(wanted=5)), NOW) == []


# What stands against more workers.


def test_after_a_failure_the_next_worker_waits_and_only_one_is_tried():
    past = Past(load_s=100.0, ended=(ended(7, 5.0),))
    (wait,) = decided(plan(4), past=past)[Wait]
    assert wait == Wait(pool="w", why="the last worker has failed", until=NOW + 5)
    assert len(decided(plan(4), past=past, now=NOW + 6)[Submit]) == 1
    assert not decided(plan(4), member(8, Stage.STARTING), past=past, now=NOW + 6)[Submit]


def test_a_pool_that_has_failed_too_often_is_given_up():
    failures = tuple(ended(number, 1000.0 - 200 * number) for number in range(5))
    found = decided(plan(2), past=Past(ended=failures))
    assert found[Wait][0].gave_up and not found[Submit]


def test_hours_that_are_used_up_leave_the_fewest_workers_until_midnight():
    pool = plan(2, fewest=1, most=4, hours_per_day=10.0)
    spent = Past(wanted=3, hours_today=10.0, day_ends_at=NOW + HOUR)
    found = decided(pool, member(0), member(1), member(2, Stage.PENDING), past=spent)
    assert workers(found[Cancel]) == ["w-2"] and len(found[Drain]) == 1 and not found[Submit]
    why = "hours_per_day = 10 are used up until midnight"
    assert found[Drain][0].why == why and found[Wait] == [Wait(pool="w", why=why, until=NOW + HOUR)]
    assert len(decided(pool, past=spent)[Submit]) == 1
    assert len(decided(pool, past=spent, pinned=4)[Submit]) == 1
    assert len(decided(pool, past=msgspec.structs.replace(spent, hours_today=9.9))[Submit]) == 3


def test_a_job_that_never_starts_as_it_is_stands_for_all_others():
    (wait,) = decided(plan(2), member(0, Stage.PENDING, obstacle="no such partition"))[Wait]
    assert wait.why == "the job of w-0 cannot start: no such partition"


# Maintenance.


def test_a_job_ends_before_a_maintenance_and_may_wait_for_a_while():
    def times(left_s, wait_s=0.0):
        found = decided(plan(1), past=Past(load_s=100.0, wait_s=wait_s), reserved=reserved(NOW + left_s))
        return [submit.time_s for submit in found[Submit]]

    assert times(48 * HOUR) == [24 * HOUR]
    assert times(8 * HOUR) == [7 * HOUR]
    assert times(8 * HOUR, wait_s=2 * HOUR) == [6 * HOUR]
    assert times(600) == [525]
    assert times(500) == []  # 100 s to load, 60 s to drain: not worth it


def test_too_soon_before_a_maintenance_nothing_is_submitted_and_users_are_told_until_when():
    found = decided(plan(1), reserved=reserved(NOW + 100))
    assert not found[Submit]
    (wait,) = found[Wait]
    assert wait.why.startswith("the nodes are reserved") and wait.until == NOW + 100 + 24 * HOUR


def test_a_number_that_a_user_has_asked_for_is_what_is_wanted():
    (want,) = decided(plan(1), member(0), pinned=0, past=Past(wanted=1))[Want]
    assert (want.workers, want.why) == (0, "as 'slurminfer scale' has said")
    assert not decided(plan(1), pinned=0, past=Past(wanted=0))[Want]


@pytest.mark.parametrize(("left_s", "words"), [(1.0, "the time of w-0 ends in 1 s"), (-3.0, "the time of w-0 is over")])
def test_a_successor_says_when_the_time_of_its_predecessor_ends(left_s, words):
    (submit,) = decided(plan(1), member(0, ends_at=NOW + left_s))[Submit]
    assert submit.why == words


def test_a_job_that_would_wait_for_the_end_of_a_maintenance_gives_way_to_a_shorter_one():
    pending = member(0, Stage.PENDING)
    assert workers(decided(plan(1), pending, reserved=reserved(NOW + 10 * HOUR))[Cancel]) == ["w-0"]
    assert not decided(plan(1), pending, reserved=reserved(NOW + 25 * HOUR))[Cancel]
    assert not decided(plan(1), pending, reserved=reserved(NOW + 100))[Cancel]


def test_a_shorter_job_is_not_given_up_again_while_it_waits_for_a_moment():
    (submit,) = decided(plan(1), reserved=reserved(NOW + 8 * HOUR))[Submit]
    pending = member(0, Stage.PENDING, limit_s=submit.time_s)
    assert not decided(plan(1), pending, reserved=reserved(NOW + 8 * HOUR), now=NOW + 0.9 * HOUR)[Cancel]


def test_a_successor_that_would_end_with_its_predecessor_is_not_submitted():
    old = member(0, ends_at=NOW + HOUR)
    assert not decided(plan(1), old, reserved=reserved(NOW + HOUR))[Submit]


# Several pools of one model.


def test_a_pool_wakes_at_once_only_where_no_other_pool_serves_the_model():
    sleeping = plan(0, fewest=0, most=2)
    other, foreign = plan(1, name="v"), plan(1, name="v", model="other")
    asked = look(member(0, id="v-0", pool="v"), demand=Demand(waiting=1, waited_s=1.0), past=Past(wanted=0))
    assert not by_kind(decide(Desired((sleeping, other)), asked, NOW))[Submit]
    assert len(by_kind(decide(Desired((sleeping, foreign)), asked, NOW))[Submit]) == 1


def test_the_number_that_is_wanted_is_said_when_it_changes():
    assert decided(plan(2), member(0), member(1))[Want] == [Want(pool="w", workers=2, why="as the spec says")]
    assert not decided(plan(2), member(0), member(1), past=Past(wanted=2))[Want]


def test_a_worker_that_hangs_does_not_bound_how_short_its_successor_may_be():
    pool = plan(1, time_min_s=3 * HOUR)
    soon = PoolForecast(
        asked_at=NOW, starts=(Start(time_s=24 * HOUR, wait_s=90 * HOUR), Start(time_s=3 * HOUR, wait_s=0.0))
    )
    (submit,) = decided(pool, member(0, hung_since=NOW - HUNG_S), forecasts={"w": soon})[Submit]
    assert submit.time_s == 3 * HOUR and submit.replaces == "w-0"
