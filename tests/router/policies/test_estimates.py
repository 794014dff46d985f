"""What is learned from answers."""

import random

import pytest

from slurminfer.router.policies.estimates import Average, Lengths, Rates


def test_an_average_follows_what_is_usual_and_not_what_is_rare():
    rng, average = random.Random(0), Average(1.0)
    for number in range(1000):
        average.add(1e6 if number % 100 == 50 else rng.uniform(90, 110))
    assert average.value == pytest.approx(100, rel=0.15)
    for _ in range(500):
        average.add(300.0)
    assert average.value == pytest.approx(300, rel=0.05)


def test_lengths_of_a_tenant_then_of_the_model_then_usual_ones():
    lengths = Lengths()
    assert lengths.output_tokens("m", "a", None) == 256
    for _ in range(100):
        lengths.answered("m", "a", 40)
    assert lengths.output_tokens("m", "a", None) == 40
    assert lengths.output_tokens("m", "a", 16) == 16
    assert lengths.output_tokens("m", "b", None) == 40
    assert lengths.output_tokens("other", "a", None) == 256


def test_tenants_without_end_take_bounded_memory():
    lengths = Lengths()
    for number in range(10_000):
        lengths.answered("m", f"t{number}", 7)
    assert len(lengths._outputs) <= 4096
    assert lengths.output_tokens("m", "new", None) == 7


def test_bytes_of_a_token_are_learned_from_long_prompts():
    lengths = Lengths()
    lengths.prompted("m", 3, 1)
    assert lengths.bytes_per_token("m") == 4.0
    for _ in range(50):
        lengths.prompted("m", 3000, 1000)
    assert lengths.bytes_per_token("m") == pytest.approx(3.0)


def test_rates_are_learned_where_little_else_was_to_do():
    rates = Rates()
    for _ in range(50):
        rates.began(1, 1000, 0, 0.1)
        rates.began(1, 1000, 1000, 0.2)  # another one was before it
        rates.began(1, 1000, 50_000, 9.0)  # many were
        rates.began(1, 3, 0, 0.05)  # overhead only
        rates.streamed(1, 101, 2.0)
        rates.streamed(1, 2, 9.0)
    assert rates.of([1])[1] == rates.report()[1] == pytest.approx((10_000, 50))
    rates.forget(1)
    assert rates.report() == {}


def test_a_worker_is_as_fast_as_others_until_its_own_speed_is_known():
    rates = Rates()
    assert rates.of([3])[3] == (5000.0, 30.0)
    for _ in range(40):
        rates.began(1, 1000, 0, 0.1)
        rates.streamed(1, 101, 2.0)
    assert rates.of([3])[3] == pytest.approx((10_000, 50))
    rates.began(3, 1000, 0, 0.2)
    assert 7_500 < rates.of([3])[3][0] < 10_000
    for _ in range(100):
        rates.began(3, 1000, 0, 0.2)
    assert rates.of([3])[3][0] == pytest.approx(5_000, rel=0.1)


def test_long_prompts_say_more_of_a_speed_than_short_ones():
    rates = Rates()
    for _ in range(100):
        rates.began(1, 4000, 0, 0.5)
        rates.began(1, 200, 0, 0.1)  # four times as long for each token: steps that ran already
    assert rates.of([1])[1][0] == pytest.approx(7000, rel=0.05)
