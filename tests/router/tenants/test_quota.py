"""Limits of requests/min and tokens/day, over all relays."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slurminfer.router.tenants.quota import Quotas
from slurminfer.router.tenants.refusal import Refused
from slurminfer.router.tenants.tenant import Tenant

MIDNIGHT = 20_000 * 86_400


class Limits:
    """Quotas over a board of the test's own."""

    def __init__(self, now=MIDNIGHT, **limits):
        self.now, self.tokens, self.reserved = float(now), 0, 0
        self.minutes: Counter[int] = Counter()
        self.tenant = Tenant(name="alice", slot=3, digest="", **limits)
        self.quotas = Quotas(self.spent, lambda: self.now)

    def spent(self, slot, minute):
        assert slot == 3
        return self.minutes[minute], self.minutes[minute - 1], self.tokens, self.reserved

    def send(self):
        """Send a request: None, or why not."""
        try:
            if (standing := self.quotas.standing(self.tenant)) is not None:
                standing.require_one_more()
        except Refused as refused:
            return refused
        self.minutes[int(self.now // 60)] += 1
        return None

    def headers(self):
        standing = self.quotas.standing(self.tenant)
        lines = b"" if standing is None else standing.lines()
        return dict(line.split(b": ") for line in lines.splitlines())


def test_without_limits_everything_passes_and_nothing_is_said():
    limits = Limits()
    limits.tokens = 10**12
    assert [limits.send() for _ in range(1000)] == [None] * 1000
    assert limits.headers() == {}


def test_requests_of_a_minute_are_bounded():
    limits = Limits(requests_per_minute=3)
    assert [limits.send() for _ in range(3)] == [None] * 3
    refused = limits.send()
    assert (refused.status, refused.code) == (429, "rate_limit_exceeded")
    assert "alice has sent 3 requests in a minute" in refused.message


def test_the_window_slides():
    limits = Limits(requests_per_minute=60)
    limits.now += 30
    assert [limits.send() for _ in range(60)] == [None] * 60
    limits.now += 30
    assert limits.send() is not None, "a new minute has begun, but the requests came just now"
    limits.now += 30
    assert sum(limits.send() is None for _ in range(60)) == 30
    limits.now += 60
    assert sum(limits.send() is None for _ in range(60)) == 45


@given(st.integers(1, 50), st.integers(0, 100), st.integers(0, 100), st.floats(0, 59.99), st.sampled_from([0, 1, 7]))
def test_after_the_time_that_it_tells_a_request_passes_and_not_much_earlier(limit, before, requests, second, minute):
    limits = Limits(MIDNIGHT + 60 * minute, requests_per_minute=limit)
    number = int(limits.now // 60)
    limits.minutes.update({number: requests, number - 1: before})
    limits.now += second
    refused = limits.send()
    if refused is None:
        return
    assert 1 <= refused.retry_after <= 120
    limits.now += refused.retry_after - 1.001
    assert refused.retry_after == 1 or limits.send() is not None
    limits.now += 1.002
    assert limits.send() is None


def test_tokens_of_a_day_are_bounded_until_midnight():
    limits = Limits(MIDNIGHT + 3600.5, tokens_per_day=1000)
    limits.quotas.set_tokens_before({"alice": 400, "bob": 10**9})
    limits.tokens = 599
    assert limits.send() is None
    limits.tokens = 600
    refused = limits.send()
    assert (refused.status, refused.code, refused.retry_after) == (429, "insufficient_quota", 23 * 3600)
    assert "1000 tokens today (UTC), of 1000 a day" in refused.message
    limits.quotas.set_tokens_before({"alice": -600})  # a new day: what the board had until then
    assert limits.send() is None


def test_headers_are_those_of_openai():
    limits = Limits(MIDNIGHT + 10, requests_per_minute=5, tokens_per_day=100)
    assert limits.headers() == {
        b"x-ratelimit-limit-requests": b"5",
        b"x-ratelimit-remaining-requests": b"5",
        b"x-ratelimit-reset-requests": b"0s",
        b"x-ratelimit-limit-tokens": b"100",
        b"x-ratelimit-remaining-tokens": b"100",
        b"x-ratelimit-reset-tokens": b"0s",
    }
    limits.send()
    limits.tokens = 120
    found = limits.headers()
    assert found[b"x-ratelimit-remaining-requests"] == b"4"
    assert found[b"x-ratelimit-reset-requests"] == b"1m50s"
    assert found[b"x-ratelimit-remaining-tokens"] == b"0"
    assert found[b"x-ratelimit-reset-tokens"] == b"23h59m50s"


@pytest.mark.parametrize("limit", ["requests_per_minute", "tokens_per_day"])
def test_only_the_limits_that_there_are_are_told(limit):
    assert len(Limits(**{limit: 5}).headers()) == 3


def test_tokens_of_requests_in_flight_are_reserved():
    limits = Limits(tokens_per_day=1000)
    limits.tokens, limits.reserved = 600, 399
    assert limits.send() is None
    assert limits.headers()[b"x-ratelimit-remaining-tokens"] == b"1"
    limits.reserved = 400
    refused = limits.send()
    assert (refused.status, refused.code, refused.retry_after) == (429, "rate_limit_exceeded", 5)
    assert "alice has used 600 tokens today (UTC), of 1000 a day; its requests" in refused.message
    with pytest.raises(Refused, match="may use the rest"):
        limits.quotas.require_tokens(limits.tenant)
    assert limits.headers()[b"x-ratelimit-remaining-tokens"] == b"0"
    limits.tokens, limits.reserved = 1000, 0
    assert limits.send().code == "insufficient_quota"
