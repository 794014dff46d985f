"""What policies do to throughput and latency, over simulated workers in virtual time: the same in every run."""

from dataclasses import replace

import pytest

from slurminfer.router.policies import cache_aware, policy_named

from ...support.simulated_fleet import Speed, closed_loop, open_loop, shared_prefixes, unique_prompts

WORKERS = 4
SPEED = Speed(cache_tokens=32_768, capacity=16)
# 2.9 times what one cache holds, 0.73 of what all hold.
PREFIXES = int(0.73 * WORKERS * SPEED.cache_tokens / 2048)


def saturated(name, prompts, relays=1):
    policies = [policy_named(name, relay) for relay in range(relays)]
    return closed_loop(policies, prompts, clients=64, requests=1200, workers=WORKERS, speed=SPEED)


def queued(prompts, relays=2, **speed):
    """Four times as many clients as the router lets through."""
    policies = [policy_named("cache_aware", relay) for relay in range(relays)]
    return closed_loop(
        policies, prompts, clients=320, requests=2400, workers=WORKERS, speed=replace(SPEED, **speed), overcommit=1.25
    )


def at_rate(name, prompts, rate):
    return open_loop([policy_named(name)], prompts, rate=rate, requests=800, workers=WORKERS, speed=SPEED)


@pytest.mark.parametrize("system", [0, 8])
@pytest.mark.parametrize("relays", [1, 3])
def test_shared_prefixes_stay_in_the_caches_of_the_fleet(system, relays):
    prompts = shared_prefixes(PREFIXES, 32 - system, system=system)
    aware, blind = saturated("cache_aware", prompts, relays), saturated("least_load", prompts)
    assert aware.throughput > 1.5 * blind.throughput
    assert min(aware.shares) > 0.15


def test_shared_prefixes_are_answered_sooner_at_the_same_rate():
    prompts = shared_prefixes(PREFIXES, 32)
    aware, blind = at_rate("cache_aware", prompts, 16.0), at_rate("least_load", prompts, 16.0)
    assert aware.p90_ttft < 0.7 * blind.p90_ttft


def test_few_hot_prefixes_make_all_workers_busy():
    prompts = shared_prefixes(2, 32)
    aware, blind = saturated("cache_aware", prompts), saturated("least_load", prompts)
    assert min(aware.shares) > 0.2
    assert aware.throughput > 0.95 * blind.throughput


@pytest.mark.parametrize("rate", [8.0, 16.0])
def test_nothing_is_lost_where_nothing_is_shared(rate):
    prompts = unique_prompts(16)
    aware, blind = at_rate("cache_aware", prompts, rate), at_rate("least_load", prompts, rate)
    assert aware.throughput > 0.98 * blind.throughput
    assert aware.p90_ttft < 1.05 * blind.p90_ttft


def test_the_size_of_a_cache_is_learned_where_the_engine_does_not_say_it():
    prompts = shared_prefixes(PREFIXES, 32)
    told, learned = queued(prompts), queued(prompts, says_cache_tokens=False)
    assert told.hit_rate > 0.8
    assert learned.hit_rate > 0.95 * told.hit_rate and learned.throughput > 0.9 * told.throughput


def test_copies_that_displace_what_is_needed_are_not_made(monkeypatch):
    prompts, found = shared_prefixes(PREFIXES, 32), []
    for copies_cost in (cache_aware._COPY, 0.0):
        monkeypatch.setattr(cache_aware, "_COPY", copies_cost)
        policies = [policy_named("cache_aware", relay) for relay in range(2)]
        found.append(open_loop(policies, prompts, rate=24.0, requests=1500, workers=WORKERS, speed=SPEED))
    careful, careless = found
    assert careful.hit_rate > careless.hit_rate + 0.01 and careful.p90_ttft < careless.p90_ttft
