"""When a request is sent again, and where it is sent."""

import pytest

from slurminfer.core.errors import UsageError
from slurminfer.jobs.batch.driver.address import Address, check_key, check_url
from slurminfer.jobs.batch.driver.options import BatchOptions
from slurminfer.jobs.batch.driver.retry import Verdict, delay_s, judge, most_failures, parse_retry_after
from slurminfer.jobs.batch.outputs.export import OutputOptions


@pytest.mark.parametrize(
    ("statuses", "verdict"),
    [
        ([200, 201], Verdict.DONE),
        ([408, 425, 429, 503], Verdict.WAIT),
        ([500, 502, 504, 599], Verdict.FAILED),
        ([400, 403, 404, 413, 422, 301], Verdict.REFUSED),
        ([401], Verdict.LOCKED_OUT),
    ],
)
def test_statuses(statuses, verdict):
    assert {judge(status) for status in statuses} == {verdict}


def test_what_an_engine_says_of_a_row_counts_more_than_what_stands_between():
    assert most_failures(500) == most_failures(200) < most_failures(502) == most_failures(None)


def test_delays_double_up_to_a_cap_and_never_undercut_retry_after():
    assert [delay_s(attempt, 0.0, 0.0) for attempt in (1, 2, 3, 20)] == [0.5, 1.0, 2.0, 30.0]
    assert delay_s(1, 0.0, 1.0) == 0.25
    assert delay_s(1, 7.0, 1.0) == 7.0
    assert delay_s(10**6, 10.0**9, 0.0) == 30.0


def test_retry_after_is_read_as_seconds_or_as_a_date():
    assert parse_retry_after("2.5", now=0) == 2.5
    assert parse_retry_after("Thu, 01 Jan 1970 00:01:00 GMT", now=20) == 40
    assert parse_retry_after("Thu, 01 Jan 1970 00:01:00 GMT", now=90) == 0
    assert [parse_retry_after(text, now=0) for text in (None, "", "soon", "-3")] == [0] * 4


@pytest.mark.parametrize(
    "url", ["", "foo", "host:8000", "ftp://host/v1", "http://", "http:///v1", "http://host:x", "http://host:99999",
            "http://a b/v1", "http://host/v1?x=1", "http://host/v1#x", "http://[::1/v1", "http://host/v1\n",
            "http://user:word@host/v1"],
)  # fmt: skip
def test_endpoints_that_are_none(url):
    with pytest.raises(UsageError, match=r"endpoint = .*expected a URL such as http://HOST:PORT/v1"):
        check_url(url)


@pytest.mark.parametrize("url", ["http://host", "https://host:8000/v1", "http://[::1]:80/v1/", "http://127.0.0.1:1"])
def test_endpoints(url):
    check_url(url)


def test_a_key_that_no_header_can_hold():
    check_key(None)
    check_key("sk-a")
    for key in ("a\n", "\u00e4", "a\x00"):
        with pytest.raises(UsageError, match="not printable ASCII"):
            check_key(key)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"limit": 0}, "limit = 0: expected at least 1"),
        ({"sample": -1}, "sample = -1: expected at least 1"),
        ({"concurrency": 0}, "concurrency = 0: expected at least 1"),
        ({"limit": 1, "sample": 2}, "limit = 1 and sample = 2: expected one of them"),
        ({"endpoint": Address("nowhere")}, "endpoint = 'nowhere'"),
    ],
)
def test_options_that_cannot_be(tmp_path, changed, message):
    basic = {"inputs": ["in"], "output": OutputOptions(path=tmp_path / "out"), "endpoint": Address("http://host")}
    with pytest.raises(UsageError, match=message):
        BatchOptions(**{**basic, **changed}).check()
