"""What failures mean for the next try."""

import pytest

from slurminfer.jobs.fleet.rules.failures import MOST_ROUNDS, trial
from slurminfer.jobs.fleet.rules.observed import Past, Stage

from .looks import NOW, ended, member


def in_a_row(number, pause_s=200.0):
    """So many failures, each submitted after the one before it, the last a second ago."""
    return tuple(ended(one, 1 + (number - 1 - one) * pause_s) for one in range(number))


@pytest.mark.parametrize(("rounds", "pause"), [(0, 0), (1, 10), (2, 20), (3, 40), (4, 80)])
def test_each_failure_doubles_the_pause(rounds, pause):
    found = trial(Past(ended=in_a_row(rounds)), [], NOW)
    assert found.not_before == (NOW - 1 + pause if rounds else 0.0)
    assert found.is_single == (rounds > 0) and not found.gave_up


def test_the_pause_has_a_bound():
    found = trial(Past(ended=in_a_row(10)), [member(0)], NOW)
    assert found.not_before == NOW - 1 + 600 and not found.gave_up


def test_after_some_failures_in_a_row_it_gives_up_and_says_why():
    found = trial(Past(ended=in_a_row(MOST_ROUNDS)), [], NOW)
    assert found.gave_up == "5 workers in a row have ended before they could serve; the last, w-4: no GPU"


def test_it_does_not_give_up_while_a_worker_serves():
    found = trial(Past(ended=in_a_row(MOST_ROUNDS)), [member(0)], NOW)
    assert not found.gave_up and not found.is_single


def test_it_gives_up_although_the_failures_are_long_ago():
    assert trial(Past(ended=in_a_row(MOST_ROUNDS, pause_s=7200.0)), [member(0, Stage.STARTING)], NOW).gave_up


def test_failures_at_the_same_time_count_as_one():
    together = tuple(ended(number, 5.0 + number) for number in range(8))
    found = trial(Past(ended=together[::-1]), [], NOW)
    assert found.not_before == NOW - 5 + 10 and not found.gave_up


@pytest.mark.parametrize(
    "fields", [{"is_wanted": True}, {"by_scheduler": True}, {"ready_s": 301.0}], ids=lambda fields: next(iter(fields))
)
def test_what_is_no_failure_of_its_own_does_not_count(fields):
    found = trial(Past(ended=tuple(ended(number, 200.0 * number + 1, **fields) for number in range(9))), [], NOW)
    assert found.not_before == 0.0 and not found.gave_up and not found.is_single


def test_a_worker_that_has_served_shows_that_the_pool_works():
    served = ended(9, 0.5, ready_s=1000.0, by_scheduler=True)
    assert not trial(Past(ended=(*in_a_row(MOST_ROUNDS), served)), [], NOW).gave_up
    assert trial(Past(ended=(ended(9, 5000.0, ready_s=1000.0), *in_a_row(MOST_ROUNDS))), [], NOW).gave_up


def test_what_can_only_fail_again_is_tried_once():
    found = trial(Past(ended=(ended(0, 10.0, is_final=True, cause="bad account"),)), [], NOW)
    assert found.gave_up == "w-0 ended: bad account; another try would end in the same way"


def test_a_user_may_ask_for_another_try():
    found = trial(Past(ended=in_a_row(MOST_ROUNDS), retry_asked_at=NOW), [], NOW)
    assert found.not_before == 0.0 and not found.gave_up and not found.is_single


def test_only_failures_of_the_last_hour_make_it_wait():
    assert trial(Past(ended=(ended(0, 3700.0),)), [], NOW).not_before == 0.0
