"""Time left: its range has the truth in about nine of ten batches whose speed varies."""

import random

import pytest

from slurminfer.jobs.batch.report.interval import Interval
from slurminfer.jobs.batch.report.pace import Pace, spread


def left(pace, rows) -> Interval:
    found = pace.left(rows)
    assert found is not None
    return found


def rates(generator, seconds, memory):
    """Rows/s of each second: varies about 50, and more slowly the longer the memory."""
    deviation, found = 0.0, []
    for _ in range(seconds):
        deviation = memory * deviation + generator.gauss(0, 15) * (1 - memory**2) ** 0.5
        found.append(max(0.0, 50 + deviation))
    return found


@pytest.mark.parametrize("memory", [0.0, 0.9])
def test_the_range_has_the_true_time_in_about_nine_of_ten_batches(memory):
    generator, covered, tries = random.Random(11), 0, 200
    for _ in range(tries):
        speeds, pace, settled = rates(generator, 3000, memory), Pace(), 0.0
        pace.see(0.0, 0)
        for second in range(400):
            settled += speeds[second]
            pace.see(second + 1.0, int(settled))
        goal, true_s = settled + 20_000, 400
        while settled < goal:
            settled += speeds[true_s]
            true_s += 1
        covered += left(pace, 20_000).covers(true_s - 400)
    assert 0.83 <= covered / tries <= 0.99


def test_the_start_is_forgotten():
    pace = Pace()
    for second in range(100):
        pace.see(float(second), 0)  # workers are starting
    for second in range(101):
        pace.see(100.0 + second, 10 * second)
    interval = left(pace, 1000)
    assert pace.rows_per_s == pytest.approx(10, rel=0.02) and interval.likely == pytest.approx(100, rel=0.02)
    assert interval.high < 110


def test_nothing_is_said_while_nothing_is_known():
    pace = Pace()
    assert pace.left(10) is None and pace.rows_per_s is None
    pace.see(0.0, 0)
    pace.see(5.0, 10)
    assert pace.left(10) is None, "five seconds are too few"
    for second in range(6, 20):
        pace.see(float(second), 10)
    assert left(pace, 0).high == 0


def test_a_batch_that_stands_still_has_no_time_left():
    pace = Pace()
    for second in range(60):
        pace.see(float(second), min(second, 10))
    assert pace.left(10) is None


def test_the_looks_of_a_week_are_few_and_still_tell_the_pace():
    pace = Pace()
    for second in range(0, 7 * 86_400, 20):
        pace.see(float(second), second * 3)
    assert len(pace._looks) <= 241
    assert pace.rows_per_s == pytest.approx(3)
    assert left(pace, 3000).likely == pytest.approx(1000, rel=0.01)


def test_spread_of_one_rate_is_all_of_it():
    assert spread([5.0]) == 1.0 and spread([0.0, 0.0]) == 1.0 and spread([2.0, 2.0]) == 0.0
