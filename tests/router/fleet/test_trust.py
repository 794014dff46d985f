"""When a worker loses and regains trust: pure, with times that the test gives."""

import pytest

from slurminfer.router.fleet.trust import FAULT_WINDOW_S, FAULTS, IDLE_S, MOST_FAULTS, Trust


def trusted(now=0.0):
    trust = Trust(now)
    trust.probed(now, "")
    return trust


def fail(trust, *times, kind="lost"):
    return [trust.fault(at, kind) for at in times]


def test_a_new_worker_gets_no_requests_until_it_has_answered():
    trust = Trust(0.0)
    assert (trust.is_trusted, trust.was_probed, trust.lost_at) == (False, False, 0.0)
    trust.probed(1.0, "")
    assert (trust.is_trusted, trust.was_probed, trust.lost_at) == (True, True, None)


def test_one_bad_probe_takes_trust_and_one_good_gives_it_back():
    trust = trusted()
    trust.probed(1.0, "/health fails")
    assert (trust.trouble, trust.lost_at, trust.is_ejected) == ("/health fails", 1.0, False)
    trust.probed(2.0, "")
    assert trust.is_trusted


def test_a_worker_that_was_away_returns_with_a_token_only():
    trust = trusted()
    for now in (1.0, 2.0, 3.0):
        trust.probed(now, "/health fails")
    assert trust.is_ejected and trust.lost_at == 1.0 and not trust.wants_token(4.0), "nobody answers yet"
    trust.probed(60.0, "")
    assert not trust.is_trusted and trust.wants_token(60.0)
    trust.made_token(60.5, "")
    assert trust.is_trusted and trust.returned_at == 60.5


def test_a_worker_that_is_slow_to_answer_for_the_first_time_is_not_ejected():
    trust = Trust(0.0)
    for now in range(1, 10):
        trust.probed(float(now), "/health answers 503")
    trust.probed(10.0, "")
    assert trust.is_trusted and trust.returned_at is None


def test_one_failed_request_ejects_nobody():
    assert fail(trusted(), 1.0) == [False]


@pytest.mark.parametrize("kind", sorted(FAULTS))
def test_repeated_faults_are_a_reason_to_eject(kind):
    assert fail(trusted(), 1.0, 2.0, 3.0, kind=kind) == [False, False, True]


@pytest.mark.parametrize("kind", ["connect", "stopped", "4xx", ""])
def test_what_is_no_fault_of_the_worker_never_counts(kind):
    assert not any(fail(trusted(), *map(float, range(1, 30)), kind=kind))


def test_faults_that_lie_far_apart_do_not_count():
    trust = trusted()
    assert not any(fail(trust, *(index * (FAULT_WINDOW_S / (MOST_FAULTS - 1) + 1) for index in range(10))))


def test_streams_that_break_at_the_same_moment_are_one_fault():
    assert not any(fail(trusted(), *[1.0 + index / 1000 for index in range(200)]))


def test_a_worker_that_answers_nearly_all_is_kept():
    trust = trusted()
    assert fail(trust, 1.0) == [False]
    trust.served(1.5, 1000)
    assert fail(trust, 2.0, 3.0) == [False, False]


def test_the_wait_doubles_up_to_a_minute_and_begins_anew_after_steady_times():
    trust, now, waits = trusted(), 0.0, []
    for _ in range(6):
        trust.eject(now, "its requests fail")
        trust.probed(now, "")
        waits.append(next(step for step in range(1000) if trust.wants_token(now + step)))
        now += waits[-1]
        trust.made_token(now, "")
        now += 1.0
    assert waits == [5, 10, 20, 40, 60, 60]
    now += 1000.0
    trust.eject(now, "its requests fail")
    assert not trust.wants_token(now + 4.9) and trust.wants_token(now + 5.0)


def test_an_ejected_worker_that_makes_no_token_is_asked_less_and_less_often():
    trust = trusted()
    trust.eject(0.0, "its requests fail")
    trust.made_token(5.0, "a request for a token is answered with 500")
    assert trust.trouble == "a request for a token is answered with 500"
    assert not trust.wants_token(14.9) and trust.wants_token(15.0)
    trust.probed(15.0, "/health fails")
    assert not trust.wants_token(15.0), "it has to answer first"


def test_an_idle_worker_is_asked_for_a_token_and_a_busy_one_is_not():
    trust = trusted()
    assert not trust.wants_token(IDLE_S - 1) and trust.wants_token(IDLE_S)
    trust.served(IDLE_S, 1)
    assert not trust.wants_token(2 * IDLE_S - 1)
    trust.served(IDLE_S + 1, 0)
    assert trust.wants_token(2 * IDLE_S), "nothing has succeeded since"


def test_an_engine_in_the_middle_of_long_answers_is_not_asked_for_a_token():
    trust = trusted()
    trust.produced(IDLE_S - 1)
    assert not trust.wants_token(IDLE_S) and trust.wants_token(2 * IDLE_S - 1)


def test_a_worker_that_makes_no_token_twice_is_ejected():
    trust = trusted()
    trust.made_token(30.0, "no token")
    assert trust.is_trusted and trust.wants_token(35.0)
    trust.made_token(35.0, "no token")
    assert trust.is_ejected and trust.trouble == "no token"


def test_a_success_between_two_missed_tokens_is_a_new_beginning():
    trust = trusted()
    trust.made_token(30.0, "no token")
    trust.served(31.0, 1)
    trust.made_token(61.0, "no token")
    assert trust.is_trusted
