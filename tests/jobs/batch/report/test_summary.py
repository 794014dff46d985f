"""The summary of a batch, over restarts and drivers, and what the jobs have used in its time."""

import msgspec
import pytest

from slurminfer.core.site.prices import parse_prices
from slurminfer.jobs.batch.report.consumption import consumption
from slurminfer.jobs.batch.report.forecast.prediction import Prediction, write_prediction
from slurminfer.jobs.batch.report.history import Span, busy
from slurminfer.jobs.batch.report.interval import exactly
from slurminfer.jobs.batch.report.report import batch_report, finish, predict_by_sample
from slurminfer.jobs.batch.report.summary import Summary, lines, summary_of
from slurminfer.jobs.batch.report.tally import BatchState, Timing
from slurminfer.jobs.receipt.ledger import JobUsage
from slurminfer.jobs.receipt.receipt import Found
from slurminfer.slurm.accounting import JobRun


def span(until, **done):
    return Span(**{"until": until, "seconds": 10.0, "rows": 10, "completion_tokens": 500, "prompt_tokens": 900, **done})


def test_all_runs_and_drivers_are_added_up(tmp_path):
    one = [span(10.0, is_first=True, cached_tokens=450), span(20.0, failed=2, reasons={"HTTP 400: too long": 2})]
    two = [span(20.0, retries=3), span(110.0, failed=3, reasons={"HTTP 500": 1, "HTTP 400: too long": 2})]
    found = summary_of(tmp_path / "out.jsonl", (100, 35, 5), [one, two], now=200.0)
    assert found is not None
    assert (found.completion_tokens, found.prompt_tokens, found.cached_tokens, found.retries) == (2000, 3600, 450, 3)
    assert (found.wall_s, found.busy_s, found.drivers) == (110.0, 30.0, 2)
    assert found.rows_per_s == pytest.approx(40 / 30)
    assert [(one.reason, one.rows) for one in found.reasons] == [("HTTP 400: too long", 4), ("HTTP 500", 1)]
    told = "\n".join(lines(found))
    assert "35 of 100 answered" in told and "4 x HTTP 400: too long" in told and "12 % cached" in told


def test_rows_that_fail_again_are_counted_once(tmp_path):
    first = [span(10.0, is_first=True, failed=3, reasons={"not JSON": 2, "HTTP 500": 1})]
    again = [span(110.0, is_first=True, failed=2, reasons={"not JSON": 2})]
    found = summary_of(tmp_path / "out.jsonl", (10, 8, 2), [first, again], now=200.0)
    assert found is not None
    assert [(one.reason, one.rows) for one in found.reasons] == [("not JSON", 2)]


def test_a_batch_that_has_done_nothing_has_no_summary(tmp_path):
    assert summary_of(tmp_path, (0, 0, 0), []) is None
    assert finish(tmp_path / "out", tmp_path / "out.ledger", None, (0, 0, 0)) is None


def test_busy_times_are_without_pauses():
    assert busy([span(10.0), span(20.0), span(15.0), span(90.0)]) == [(0.0, 20.0), (80.0, 90.0)]


def test_a_driver_reports_and_its_summary_and_picture_are_written(tmp_path, capsys):
    output, ledger = tmp_path / "out.jsonl", tmp_path / "out.jsonl.ledger"
    write_prediction(ledger, Prediction(made_at=0.0, rows=100, basis="a test", seconds=exactly(5.0)))
    with batch_report(output, ledger, None) as report:
        for rows in (0, 40, 90):
            report.see(BatchState(total=100, answered=rows, failed=0, own=rows, elapsed_s=rows / 10, workers=2))
        report.see(
            BatchState(
                total=100, answered=98, failed=2, own=100, elapsed_s=10.0, completion_tokens=700, reasons={"why": 2}
            )
        )
    written = finish(output, ledger, None, (100, 98, 2))
    assert written is not None
    summary, picture = written
    kept = msgspec.json.decode((ledger / "summary.json").read_bytes(), type=Summary)
    assert summary == kept and picture.read_text().startswith("<svg ")
    assert (summary.rows, summary.failed, summary.completion_tokens, summary.busy_s) == (100, 2, 700, 10.0)
    assert summary.reasons[0].reason == "why"
    assert summary.achieved is not None and summary.achieved.ratio == pytest.approx(0.5)
    assert "100/100" in capsys.readouterr().err


def test_a_sample_predicts_the_rest_and_keeps_it(tmp_path):
    timings = [
        Timing(began=n // 4 * 1.0, ended=n // 4 + 1.0, prompt_tokens=10, cached_tokens=0, completion_tokens=20)
        for n in range(200)
    ]
    found = predict_by_sample(tmp_path / "l", None, timings, 4000, clock=lambda: 7.0)
    assert found is not None and found.seconds is not None and found.seconds.likely == pytest.approx(1000, rel=0.02)
    assert (tmp_path / "l" / "prediction.json").exists()
    assert predict_by_sample(tmp_path / "l", None, timings[:5], 4000) is None


def usage(**fields):
    given = {"job": "7", "role": "p-0", "pool": "p", "partition": "gpu", "gpus": 4, "cpus": 8, "submitted_at": 1000.0,
             "looked_at": 9000.0, "started_at": 1100.0, "running_s": 7200.0}  # fmt: skip
    return JobUsage(**{**given, **fields})


def found_of(*jobs, runs=None):
    prices = parse_prices('currency = "EUR"\n[default]\ngpu_hour = 2.0\n')
    return Found(name="d", is_running=True, jobs=jobs, runs=runs or {}, usage={}, accounts={}, prices=prices)


def test_hours_are_those_of_the_batch_s_own_time():
    found = consumption(found_of(usage()), [(2000.0, 3800.0), (5000.0, 5900.0)], now=9000.0)
    assert found is not None
    assert found.hours.gpu == pytest.approx(4 * 2700 / 3600) and found.cost == pytest.approx(2 * found.hours.gpu)
    assert found.currency == "EUR" and found.worker_hours == found.hours


def test_what_ended_before_does_not_count_and_the_router_is_told_apart():
    old = usage(job="6", ended_at=1900.0)
    router = usage(job="5", role="router", pool="router", gpus=0, cpus=1)
    found = consumption(found_of(old, router, usage()), [(2000.0, 5600.0)], now=9000.0)
    assert found is not None
    assert found.hours.gpu == pytest.approx(4.0) and found.hours.cpu == pytest.approx(9.0)
    assert found.worker_hours.cpu == pytest.approx(8.0)


def test_accounting_s_runs_are_cut_to_the_time_too():
    run = JobRun(
        job="7",
        partition="gpu",
        account="a",
        started_at=1500.0,
        ended_at=5100.0,
        elapsed_s=3600.0,
        nodes=1,
        cpus=8,
        gpus=4,
    )
    found = consumption(found_of(usage(ended_at=5100.0), runs={"7": [run]}), [(0.0, 3300.0)], now=9000.0)
    assert found is not None and found.hours.gpu == pytest.approx(4 * 0.5)
    lost = msgspec.structs.replace(run, started_at=None)
    assert consumption(found_of(runs={"7": [lost]}), [(0.0, 3300.0)], now=9000.0) is None
