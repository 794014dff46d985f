"""Predictions from a sample: their ranges have what then happens, in about nine of ten batches."""

import random

import pytest

from slurminfer.jobs.batch.report.forecast.sampled import LEAST_ROWS, SampleForecast, forecast

from . import simulated


def told(timings, rows) -> SampleForecast:
    found = forecast(timings, rows)
    assert found is not None
    return found


def lengths(random, count, sigma):
    return [max(1, min(2048, round(random.lognormvariate(4.6, sigma)))) for _ in range(count)]


@pytest.mark.parametrize(("sigma", "slots"), [(0.3, 16), (1.0, 32), (1.4, 16)])
def test_the_range_has_the_true_time_in_about_nine_of_ten_batches(sigma, slots):
    generator, covered, errors, tries = random.Random(7), 0, [], 120
    for _ in range(tries):
        whole = lengths(generator, 4000, sigma)
        true_s = simulated.run(whole, slots)[-1].ended
        found = told(simulated.run(generator.sample(whole, 200), slots, ramp_s=2.0), len(whole))
        assert found.is_steady
        covered += found.seconds.covers(true_s)
        errors.append(found.seconds.likely / true_s)
    assert covered / tries >= 0.83, f"{covered / tries:.2f}"
    assert covered / tries <= 0.99 or sigma < 0.5, "the range is wider than it has to be"
    assert 0.95 < sorted(errors)[tries // 2] < 1.05, "the likely value is off to one side"


def test_the_start_and_the_end_of_a_sample_do_not_count():
    whole = [100] * 3000
    true_s = simulated.run(whole, 32)[-1].ended
    sample = simulated.run(whole[:200], 32, ramp_s=10.0)
    found = told(sample, len(whole))
    assert found.seconds.likely == pytest.approx(true_s, rel=0.06)
    naive_s = sample[-1].ended / 200 * len(whole)
    assert naive_s > 1.2 * true_s, "the sample would have said nothing of what is tested here"


def test_a_sample_whose_longest_rows_were_sent_first_says_the_same():
    generator = random.Random(3)
    whole = lengths(generator, 4000, 1.0)
    true_s = simulated.run(whole, 32)[-1].ended
    sample = sorted(generator.sample(whole, 400), reverse=True)
    assert told(simulated.run(sample, 32), len(whole)).seconds.likely == pytest.approx(true_s, rel=0.15)


def test_a_sample_that_was_all_under_way_at_once_says_that_it_has_no_steady_part():
    generator = random.Random(5)
    sample = simulated.run(lengths(generator, 60, 1.0), 64)
    found = told(sample, 1000)
    assert not found.is_steady and found.seconds.low < found.seconds.likely < found.seconds.high


def test_tokens_of_a_row_have_a_range_around_the_mean():
    sample = simulated.run([10] * 50 + [90] * 50, 8)
    found = told(sample, 1000)
    assert found.completion_tokens.likely == 50 and found.completion_tokens.covers(52)
    assert found.completion_tokens.low > 40 and found.completion_tokens.high < 60
    assert found.prompt_tokens.low == found.prompt_tokens.high == 100


def test_too_few_rows_say_nothing():
    assert forecast(simulated.run([10] * (LEAST_ROWS - 1), 4), 1000) is None
    assert forecast([], 1000) is None
