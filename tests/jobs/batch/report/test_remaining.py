"""How long a batch still takes, as its history tells somebody outside."""

import pytest

from slurminfer.jobs.batch.report.history import Span
from slurminfer.jobs.batch.report.interval import Interval
from slurminfer.jobs.batch.report.remaining import seconds_left


def spans(*rows, begin=1000.0, seconds=10.0):
    return [Span(until=begin + (place + 1) * seconds, seconds=seconds, rows=each) for place, each in enumerate(rows)]


def known(*given) -> Interval:
    found = seconds_left(*given)
    assert found is not None
    return found


def test_a_steady_pace_has_a_narrow_range():
    left = known([spans(*[20] * 20)], 1000.0, 400)
    assert left.likely == pytest.approx(200)
    assert left.low == pytest.approx(200) and left.high == pytest.approx(200)


def test_a_pace_that_varies_has_a_wider_one():
    waves = [place % 3 - place % 2 - 0.5 for place in range(24)]
    some, more = (known([spans(*[20 + away * wave for wave in waves])], 1000.0, 400) for away in (2, 15))
    assert some.low < some.likely < some.high
    assert more.high / more.low > some.high / some.low


def test_one_record_says_little():
    left = known([spans(20)], 1000.0, 400)
    assert left.likely == pytest.approx(200) and left.high / left.low > 100


def test_drivers_add_up_though_one_has_noted_less_of_late():
    left = known([spans(*[20] * 20), spans(*[10] * 19, begin=1003.0)], 1000.0, 300)
    assert left.likely == pytest.approx(10 * 10, rel=0.02)


def test_a_driver_that_has_ended_counts_for_the_time_until_then():
    left = known([spans(*[20] * 20), spans(*[20] * 5)], 1000.0, 200)
    assert left.likely == pytest.approx(100, rel=0.02)


def test_what_was_before_those_at_work_began_does_not_count():
    assert known([spans(*[500] * 5, begin=0.0), spans(*[20] * 10)], 1000.0, 200).likely == pytest.approx(100)


def test_where_nothing_was_done_of_late_it_is_not_known():
    assert seconds_left([], 0.0, 10) is None
    assert seconds_left([spans(20)], 5000.0, 10) is None
    assert seconds_left([spans(20, 20, *[0] * 10)], 1000.0, 10) is None
    assert seconds_left([spans(20)], 1000.0, 0) is None
    assert seconds_left([spans(20, seconds=4.0)], 1000.0, 10) is None


def test_a_history_of_weeks_is_read_as_fast_as_one_of_days():
    long = spans(*[200] * 2000, seconds=100.0)
    assert known([long], 1000.0, 2000).likely == pytest.approx(1000, rel=0.02)
