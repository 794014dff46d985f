"""Throughput over time, kept in the ledger: across restarts, of several drivers, bounded, and after a kill."""

import pytest

from slurminfer.core.errors import BatchError
from slurminfer.jobs.batch.report.history import MOST_RECORDS, History, Span, coarser, joined, read, together
from slurminfer.jobs.batch.report.tally import BatchState


def span(until, seconds=10.0, **done):
    return Span(until=until, seconds=seconds, **done)


def drive(ledger, name, steps, *, begin=1000.0, step_s=10.0, rows=50):
    """A driver that settles `rows` in each step."""
    clock = [begin]
    history = History(ledger, name, lambda: clock[0])
    for step in range(1, steps + 1):
        clock[0] = begin + step * step_s
        history.note(
            BatchState(
                total=10**9, answered=step * rows, failed=0, own=step * rows, elapsed_s=step * step_s,
                completion_tokens=7 * step * rows, workers=2,
            )
        )  # fmt: skip
    return history


def test_what_was_done_is_there_after_a_restart_and_a_kill(tmp_path):
    drive(tmp_path, "one", 6)
    second = drive(tmp_path, "two", 3, begin=2000.0)
    with second.path.open("ab") as file:
        file.write(b'{"until":2040.0,"sec')  # killed while it wrote
    one, two = read(tmp_path)
    assert sum(each.rows for each in one) == 300 and sum(each.rows for each in two) == 150
    assert [each.is_first for each in one] == [True, *[False] * 5]
    assert one[0].since == 1000.0 and two[-1].until == 2030.0


def test_nothing_is_written_before_it_is_time_except_at_the_end(tmp_path):
    clock = [0.0]
    history = History(tmp_path, "one", lambda: clock[0])
    for at in (1.0, 3.0, 4.0):
        clock[0] = at
        history.note(BatchState(total=9, answered=int(at), failed=0, own=int(at), elapsed_s=at))
    assert read(tmp_path) == []
    history.note(BatchState(total=9, answered=9, failed=0, own=9, elapsed_s=9.0), is_last=True)
    [[only]] = read(tmp_path)
    assert (only.rows, only.seconds) == (9, 9.0)


def test_a_long_batch_stays_small_and_loses_nothing(tmp_path):
    steps = 3 * MOST_RECORDS
    history = drive(tmp_path, "one", steps)
    [spans] = read(tmp_path)
    assert len(spans) <= MOST_RECORDS and len(history.path.read_bytes().splitlines()) == len(spans)
    missing = steps * 50 - sum(each.rows for each in spans)
    assert 0 <= missing < 50 * 8, "of the last step only, which is longer now"
    assert spans[0].is_first and spans[0].since == 1000.0
    assert list(tmp_path.glob("history/.*")) == []


def test_drivers_are_added_up_on_one_time_line(tmp_path):
    one = [span(10.0, rows=100, is_first=True, workers=2), span(20.0, rows=100, workers=3)]
    two = [span(25.0, rows=200, is_first=True, workers=3)]
    found = together([one, two], buckets=5)
    assert sum(each.rows for each in found) == pytest.approx(400)
    assert found[0].since == 0.0 and found[-1].until == 25.0 and len(found) == 2
    assert found[0].rows == pytest.approx(125) and found[1].rows == pytest.approx(275)
    assert [each.is_first for each in found] == [True, True]


def test_few_spans_are_not_stretched_over_many_buckets():
    found = together([[span(10.0, rows=1), span(20.0, rows=2)]], buckets=100)
    assert [each.rows for each in found] == [1, 2]
    assert together([], buckets=5) == [] and together([[]], buckets=5) == []


def test_a_pause_between_two_drivers_is_seen():
    found = together([[span(10.0, rows=10)], [span(100.0, rows=10)]], buckets=10)
    assert [round(each.rows, 6) for each in found] == [10, *[0] * 8, 10]


def test_joining_keeps_sums_and_the_whole_time():
    both = joined(span(10.0, rows=1, retries=2, is_first=True), span(25.0, rows=2, failed=1, workers=4))
    assert (both.since, both.until, both.rows, both.retries, both.failed) == (0.0, 25.0, 3, 2, 1)
    assert both.is_first and both.workers == 4
    assert [each.rows for each in coarser([span(10.0 * n, rows=n) for n in range(1, 6)])] == [3, 7, 5]


def test_a_folder_that_cannot_be_written_is_said(tmp_path):
    (tmp_path / "history").write_text("a file")
    with pytest.raises(BatchError, match="history"):
        drive(tmp_path, "one", 1)
