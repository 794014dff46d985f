"""What relays have counted, together: relays that end, and those that follow them."""

import msgspec

from slurminfer.router.control.counters import Counters, Latency
from slurminfer.router.control.messages import Report
from slurminfer.router.control.reports import Reports
from slurminfer.router.tenants.tenant import Usage


def report(requests: int = 0, **fields: object) -> Report:
    counters = Counters(retries=requests)
    counters.count(counters.requests, ("/v1/completions", 200), requests)
    counters.time(counters.ttft, "/v1/completions", 0.3)
    base = {"counters": counters, "usage": {}, "queued": {}, "connections": {}, "rates": {}}
    return Report(**{**base, **fields})  # type: ignore[arg-type]


def test_reports_are_cumulative_and_those_of_relays_add_up():
    reports = Reports()
    for requests in (1, 5):
        reports.hear(0, report(requests))
    reports.hear(1, report(2))
    counters = reports.counters()
    assert counters.requests == {("/v1/completions", 200): 7} and counters.retries == 7
    assert sum(counters.ttft["/v1/completions"].counts) == 2


def test_the_sum_can_be_asked_for_again_and_again():
    reports = Reports()
    reports.hear(0, report(3))
    assert reports.counters() == reports.counters()


def test_nothing_is_lost_when_a_relay_ends_and_another_follows():
    reports = Reports()
    reports.hear(0, report(3, usage={"a": Usage(requests=3)}, queued={"batch": 2}, connections={"trusted": 1}))
    reports.ended(0)
    assert (reports.queued(), reports.connections()) == ({}, {})
    reports.hear(0, report(1, usage={"a": Usage(requests=1)}))
    assert reports.counters().retries == 4
    assert reports.usage()["a"].requests == 4
    reports.ended(5)


def test_what_workers_have_served_since_the_last_report():
    reports = Reports()
    assert reports.hear(0, report(served={7: 3})) == {7: 3}
    assert reports.hear(0, report(served={7: 5, 8: 1})) == {7: 2, 8: 1}
    reports.ended(0)
    assert reports.hear(0, report(served={7: 1})) == {7: 1}


def test_rates_are_the_mean_of_what_relays_have_learned():
    reports = Reports()
    reports.hear(0, report(rates={1: (100.0, 10.0), 2: (50.0, 5.0)}))
    reports.hear(1, report(rates={1: (300.0, 30.0)}))
    assert reports.rates() == {1: (200.0, 20.0), 2: (50.0, 5.0)}


def test_what_waits_and_is_connected_adds_up():
    reports = Reports()
    for relay in (0, 1):
        reports.hear(relay, report(queued={"batch": 2}, connections={"trusted": 3}))
    assert (reports.queued(), reports.connections()) == ({"batch": 4}, {"trusted": 6})


def test_counters_travel_as_they_are():
    counters = report(3).counters
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(counters), type=Counters) == counters


def test_a_value_at_a_bound_counts_below_it_and_one_above_all_in_the_last():
    histogram = Latency()
    for value in (0.01, 0.0101, 1e9):
        histogram.observe(value)
    assert (histogram.counts[0], histogram.counts[1], histogram.counts[-1]) == (1, 1, 1)
    assert histogram.sum == 1e9 + 0.0201
