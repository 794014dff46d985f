"""The parts of the batch driver that only decide or show."""

import asyncio
import io

import pytest
from rich.console import Console

from slurminfer.jobs.batch.command import batch_progress
from slurminfer.jobs.batch.driver.concurrency import Slots
from slurminfer.jobs.batch.inputs.jsonl import JsonlReader
from slurminfer.jobs.batch.inputs.request import BadLine
from slurminfer.jobs.batch.driver.retry import Verdict, delay_s, judge, parse_retry_after
from slurminfer.jobs.batch.report.tally import BatchState


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


def test_slots_follow_their_size():
    async def use():
        slots = Slots(1)
        await slots.take()
        second = asyncio.create_task(slots.take())
        await asyncio.sleep(0)
        assert not second.done()
        slots.resize(2)
        await second
        slots.resize(1)
        third = asyncio.create_task(slots.take())
        slots.release()
        await asyncio.sleep(0.01)
        assert not third.done(), "one is still taken, and there is but one"
        slots.release()
        await third

    asyncio.run(use())


STATE = BatchState(total=10, done=4, skipped=1, failed=1, tokens=300, elapsed_s=2.0)


def test_state_tells_pace_and_time_left():
    assert STATE.tokens_per_s == 150
    assert STATE.left_s == pytest.approx(2.0 / 4 * 5)


def test_a_job_log_gets_lines():
    written = io.StringIO()
    console = Console(file=written, width=200)
    with batch_progress(console) as show:
        show(STATE)
        show(STATE)
        show(BatchState(total=10, done=9, skipped=1, failed=1, tokens=600, elapsed_s=4.0))
    assert written.getvalue().splitlines() == [
        "batch 5/10 150 tokens/s, 0:00:02 left, 1 failed",
        "batch 10/10 150 tokens/s, 0:00:00 left, 1 failed",
    ]


def test_a_terminal_gets_a_bar():
    written = io.StringIO()
    console = Console(file=written, force_terminal=True, width=100)
    with batch_progress(console) as show:
        show(STATE)
    assert "5/10" in written.getvalue()
    assert "150 tokens/s, 0:00:02 left, 1 failed" in written.getvalue()


def test_a_line_that_is_not_utf8_is_a_bad_line(tmp_path):
    path = tmp_path / "in.jsonl"
    path.write_bytes(b'{"prompt": "\xff"}\n{"prompt": "a"}\n')
    bad, good = JsonlReader().read(path)
    assert isinstance(bad, BadLine) and bad.message.startswith("not JSON: ") and bad.line == 1
    assert not isinstance(good, BadLine)
