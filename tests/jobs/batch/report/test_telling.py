"""What a driver tells the router, through the run directory."""

import os

from slurminfer.core.batches import FORGOTTEN_S, read_batches
from slurminfer.core.rundir import RunDirectory
from slurminfer.jobs.batch.report.pace import Pace
from slurminfer.jobs.batch.report.rates import TokenRates
from slurminfer.jobs.batch.report.report import batch_report
from slurminfer.jobs.batch.report.tally import BatchState
from slurminfer.jobs.batch.report.telling import Telling


def looks(seconds):
    """A driver that settles 10 rows/s, seen each second."""
    pace, rates = Pace(), TokenRates()
    for second in range(seconds + 1):
        state = BatchState(
            total=1000, answered=10 * second, failed=0, own=10 * second, elapsed_s=float(second),
            completion_tokens=70 * second, in_flight=8,
        )  # fmt: skip
        pace.see(state.elapsed_s, state.settled)
        rates.see(state)
    return state, pace, rates


def test_a_driver_tells_now_and_then_and_is_gone_at_its_end(tmp_path):
    now, run = [5000.0], RunDirectory(tmp_path)
    telling = Telling(run, tmp_path / "out.jsonl", "one", lambda: now[0])
    telling.tell(*looks(40))
    [record] = read_batches(run.batches_path).values()
    assert (record.name, record.total, record.answered, record.in_flight) == ("out.jsonl", 1000, 400, 8)
    assert round(record.rows_per_s, 3) == 10 and round(record.completion_tokens_per_s, 3) == 70
    assert record.began_at == 4960.0 and record.left_s is not None and 55 < record.left_s < 65
    now[0] += 1.0
    telling.tell(*looks(41))
    assert read_batches(run.batches_path)["one"] == record, "one second is too soon"
    now[0] += 5.0
    telling.tell(*looks(46))
    assert read_batches(run.batches_path)["one"].answered == 460
    telling.end()
    assert read_batches(run.batches_path) == {}


def test_drivers_of_one_output_are_one_batch_and_others_are_not(tmp_path):
    run, seen = RunDirectory(tmp_path), looks(20)
    for driver, output in (("one", "a/out"), ("two", "a/out"), ("three", "b/out")):
        Telling(run, tmp_path / output, driver).tell(*seen)
    found = read_batches(run.batches_path)
    assert found["one"].batch == found["two"].batch != found["three"].batch
    assert {record.name for record in found.values()} == {"out"}


def test_what_killed_drivers_have_left_goes(tmp_path):
    run = RunDirectory(tmp_path)
    Telling(run, tmp_path / "out", "killed", lambda: 1000.0).tell(*looks(20))
    os.utime(run.batches_path / "killed.json", (1000.0, 1000.0))
    Telling(run, tmp_path / "out", "next", lambda: 1001.0 + FORGOTTEN_S).tell(*looks(20))
    assert list(read_batches(run.batches_path)) == ["next"]


def test_a_run_directory_that_cannot_be_written_does_not_end_the_batch(tmp_path, caplog):
    (tmp_path / "batches").write_text("a file")
    with batch_report(tmp_path / "out", tmp_path / "out.ledger", RunDirectory(tmp_path)) as report:
        for second in range(12):
            report.see(BatchState(total=10, answered=second, failed=0, own=second, elapsed_s=float(second)))
    assert sum("does not show this batch" in message for message in caplog.messages) == 1
    assert list((tmp_path / "out.ledger" / "history").glob("*.jsonl"))
