"""When a backfill pool gets workers, how long their jobs are, and when it gets none."""

import math

import msgspec
import pytest

from slurminfer.jobs.fleet.rules.actions import Cancel, Drain, Submit, Wait, Want
from slurminfer.jobs.fleet.rules.desired import PoolPlan
from slurminfer.jobs.fleet.rules.harvest import NOW_S, STARTS_WITHIN_S
from slurminfer.jobs.fleet.rules.observed import Demand, Past, PoolForecast, Stage, Start
from slurminfer.jobs.fleet.rules.pool import HUNG_S

from .looks import HOUR, NOW, decided, ended, member, plan

WORK = Demand(in_flight=0, waiting=80)
PAST = Past(wanted=10, load_s=100.0, capacity=8)


def pool(**fields) -> PoolPlan:
    given = {"fewest": 0, "most": 16, "initial": 0, "time_s": 4 * HOUR, "is_backfill": True, "time_min_s": 1200.0}
    return plan(**{**given, **fields})


def forecast(*starts: tuple[float, float | None], asked_at: float = NOW, reason: str = "") -> dict[str, PoolForecast]:
    """By walltime limit, after how many seconds such a job would start."""
    found = tuple(Start(time_s=time_s, wait_s=wait_s, reason=reason) for time_s, wait_s in starts)
    return {"w": PoolForecast(asked_at=asked_at, starts=found)}


HOLE = forecast((4 * HOUR, 7200.0), (2 * HOUR, 7200.0), (HOUR, 5.0), (HOUR / 2, 0.0))


def done(*members, forecasts=HOLE, demand=WORK, past=PAST, plan=None):
    return decided(plan or pool(), *members, forecasts=forecasts, demand=demand, past=past)


def running(count: int, **fields):
    return [member(number, submitted_at=NOW - HOUR, **fields) for number in range(count)]


def test_a_job_has_the_longest_limit_that_starts_now_and_says_for_how_long_it_is_to_serve():
    (submit,) = done()[Submit]
    assert submit == Submit(
        pool="w",
        time_s=HOUR,
        why="10 workers missing for the work that there is; Slurm would start one of 60 minutes now",
        predicted_s=HOUR - 100 - 60,
    )


def test_without_work_none_is_submitted_and_one_request_is_enough_for_one():
    assert not done(demand=Demand(idle_s=9.0), past=msgspec.structs.replace(PAST, wanted=0))[Submit]
    found = done(demand=Demand(waiting=1), past=Past(wanted=0, load_s=100.0, capacity=8))
    assert [action.workers for action in found[Want]] == [1] and len(found[Submit]) == 1


def test_as_many_workers_are_wanted_as_the_requests_fill():
    for waiting, number in ((8, 1), (9, 2), (1000, 16)):
        (want,) = done(demand=Demand(waiting=waiting), past=msgspec.structs.replace(PAST, wanted=0))[Want]
        assert want.workers == number
    (want,) = done(past=Past())[Want]
    assert want.workers == 1  # nobody knows what a worker can do


def test_where_nothing_would_start_now_none_is_submitted_and_that_is_said():
    found = done(forecasts=forecast((HOUR, 600.0), (HOUR / 2, NOW_S + 1)))
    assert not found[Submit]
    why = "there is no hole in Slurm's schedule for a job of 30 minutes or more now"
    assert found[Wait] == [Wait(pool="w", why=why, until=NOW + 60)]
    assert done(forecasts=forecast((HOUR / 2, NOW_S)))[Submit]


def test_what_slurm_would_refuse_is_not_submitted():
    (wait,) = done(forecasts=forecast((HOUR, None), reason="invalid account"))[Wait]
    assert wait.why == "Slurm would refuse the job: invalid account"


@pytest.mark.parametrize("asked_at", [None, NOW - HOUR - 1])
def test_the_forecast_must_be_of_after_the_latest_submission(asked_at):
    forecasts = {} if asked_at is None else forecast((HOUR, 0.0), asked_at=asked_at)
    found = done(*running(1), forecasts=forecasts)
    assert not found[Submit] and found[Wait][0].why == "Slurm has not said yet what it would start now"


def test_a_start_that_has_come_near_since_is_one_now():
    assert done(forecasts=forecast((HOUR, 90.0), asked_at=NOW - 30))[Submit]


@pytest.mark.parametrize(("there", "more"), [(0, 1), (1, 1), (2, 2), (4, 4), (6, 4), (9, 1), (10, 0)])
def test_as_many_are_added_as_run_already(there, more):
    assert len(done(*running(there), plan=pool(most_pending=4))[Submit]) == more


def test_no_more_are_added_than_there_is_room_for():
    start = Start(time_s=HOUR, wait_s=0.0, room=3)
    hole = {"w": PoolForecast(asked_at=NOW, starts=(start,))}
    assert [len(done(*running(there), forecasts=hole)[Submit]) for there in (0, 2, 5, 8)] == [1, 2, 3, 2]


def test_none_is_submitted_while_one_waits_in_the_queue():
    found = done(*running(4), member(5, Stage.PENDING, since=NOW - 20, submitted_at=NOW - 20))
    assert not found[Submit] and not found[Cancel]


def test_one_that_does_not_start_is_cancelled_and_the_next_is_tried_later_and_alone():
    late = member(5, Stage.PENDING, since=NOW - STARTS_WITHIN_S)
    (cancel,) = done(*running(4), late)[Cancel]
    assert cancel == Cancel(worker="w-5", why="Slurm has not started it, although it was to start at once")
    for ago_s, more in ((299.0, 0), (300.0, 1), (3599.0, 1), (3600.0, 4)):
        past = msgspec.structs.replace(PAST, ended=(ended(5, ago_s, is_wanted=True, has_missed=True),))
        found = done(*running(4), past=past)
        assert len(found[Submit]) == more
        assert bool(found[Wait]) == (not more)


def test_the_pause_grows_with_each_further_one_that_does_not_start_until_one_does():
    missed = [ended(number, 600.0 + number, is_wanted=True, has_missed=True) for number in range(6)]
    for latest, ago_s in ((missed[:1], 300), (missed[:2], 600), (missed[:3], 1200), (missed, 3600)):
        (wait,) = done(past=msgspec.structs.replace(PAST, ended=tuple(latest)))[Wait] or [None]
        assert (wait.until if wait else NOW) == max(NOW, NOW - 600 + ago_s)
    one_started = (*missed, ended(9, 601.5, by_scheduler=True, ready_s=900.0))
    assert done(past=msgspec.structs.replace(PAST, ended=one_started))[Submit]


def test_jobs_that_are_taken_away_before_they_serve_make_the_next_ones_rarer():
    taken = [ended(number, 100.0 * (6 - number), by_scheduler=True, was_cut=True) for number in range(5)]
    for count, pause_s in ((1, 0), (2, 60), (3, 120), (5, 480)):
        past = msgspec.structs.replace(PAST, ended=tuple(taken[:count]))
        (wait,) = done(past=past)[Wait] or [None]
        until = taken[count - 1].at + pause_s
        assert (wait.until if wait else NOW) == max(NOW, until)
    assert wait and wait.why.startswith("Slurm has taken the latest jobs away before they served")
    one_served = (*taken, ended(6, 1.0, by_scheduler=True, was_cut=True, ready_s=900.0))
    assert done(past=msgspec.structs.replace(PAST, ended=one_served))[Submit]
    at_once = tuple(ended(number, 50.0, by_scheduler=True, was_cut=True) for number in range(4))
    assert done(past=msgspec.structs.replace(PAST, ended=at_once))[Submit]


def test_no_job_is_so_short_that_it_loads_for_longer_than_it_serves():
    slow = msgspec.structs.replace(PAST, load_s=HOUR / 2)
    assert done(past=slow, forecasts=forecast((HOUR + 60, 0.0)))[Submit]
    assert not done(past=slow, forecasts=forecast((HOUR, 0.0)))[Submit]


def test_a_worker_gets_no_successor_and_goes_when_it_hangs():
    found = done(*running(10, ends_at=NOW + 100))
    assert not found[Submit] and not found[Drain]
    (drain,) = done(*running(10)[1:], member(0, hung_since=NOW - HUNG_S))[Drain]
    assert drain.worker == "w-0"


def test_all_go_when_there_was_no_work_for_long():
    past = msgspec.structs.replace(PAST, wanted=3, enough_since=NOW - 299)
    assert not done(*running(3), demand=Demand(idle_s=299.0), past=past)[Drain]
    past = msgspec.structs.replace(past, enough_since=NOW - 300)
    assert len(done(*running(3), demand=Demand(idle_s=300.0), past=past)[Drain]) == 3


def test_workers_stay_where_the_load_is_not_known():
    found = done(*running(10), demand=None)
    assert not any(found.values())


def test_where_the_hours_are_used_up_none_is_submitted():
    past = msgspec.structs.replace(PAST, hours_today=5.0)
    found = done(*running(2), past=past, plan=pool(hours_per_day=5.0))
    assert not found[Submit] and len(found[Drain]) == 2


def test_without_a_scheduler_all_start_at_once():
    (first, *others) = done(forecasts={}, plan=pool(has_walltime=False))[Submit]
    assert first.predicted_s is None and len(others) == 9


def test_what_was_enough_a_while_ago_is_not_submitted_again_without_work_for_it():
    past = msgspec.structs.replace(PAST, wanted=4)
    assert len(done(*running(2), demand=Demand(in_flight=16, waiting=16), past=past)[Submit]) == 2
    for demand in (Demand(in_flight=16), Demand(idle_s=5.0)):
        assert not done(*running(2), demand=demand, past=past)[Submit]


def test_the_number_that_a_user_asks_for_needs_no_work():
    found = decided(pool(), forecasts=HOLE, demand=Demand(), past=PAST, pinned=3)
    assert len(found[Submit]) == 1


def test_less_is_predicted_where_workers_are_often_taken_away():
    def predicted(**how):
        past = msgspec.structs.replace(
            PAST, ended=(ended(7, 1000.0, submitted_at=NOW - 4600, by_scheduler=True, **how),)
        )
        return done(past=past)[Submit][0].predicted_s

    assert predicted() == HOUR - 160
    # One loss in an hour.
    use = HOUR - 160
    assert predicted(was_cut=True) == pytest.approx(math.exp(-100 / HOUR) * (1 - math.exp(-use / HOUR)) * HOUR)
    assert predicted(was_cut=True, has_missed=True) == HOUR - 160


def test_a_pool_that_has_given_up_says_so_also_while_no_request_waits_for_a_moment():
    past = Past(wanted=1, ended=(ended(0, 100.0, is_final=True),))
    for demand in (WORK, Demand(idle_s=5.0)):
        assert [wait.gave_up for wait in done(past=past, demand=demand)[Wait]] == [True]
