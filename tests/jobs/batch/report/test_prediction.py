"""What was predicted, kept, and compared with what has come of it."""

import pytest

from slurminfer.core.site.prices import parse_prices
from slurminfer.core.spec.files import parse_spec
from slurminfer.jobs.batch.report.forecast.prediction import (
    Prediction,
    achieved,
    lines,
    of_sample,
    read_prediction,
    with_resources,
    write_prediction,
)
from slurminfer.jobs.batch.report.forecast.sampled import forecast
from slurminfer.jobs.batch.report.history import Span
from slurminfer.jobs.batch.report.interval import Interval
from slurminfer.jobs.batch.report.resources import resources

from . import simulated

SPEC = """\
name = "test"
[model]
path = "stub-model"
[router]
partition = "cpu"
cpus_per_task = 2
[[pool]]
name = "large"
engine = "sglang"
workers = 3
nodes = 2
gpus_per_node = 4
cpus_per_task = 16
partition = "gpu"
"""
PRICES = 'currency = "EUR"\n[[partition]]\nname = "gpu"\ngpu_hour = 2.0\n[[partition]]\nname = "cpu"\ncpu_hour = 0.01\n'
HOUR = Interval(low=1800.0, likely=3600.0, high=7200.0)


def prediction(**fields):
    given = {
        "made_at": 100.0,
        "rows": 1000,
        "basis": "a test",
        "seconds": HOUR,
        "rows_per_s": HOUR.inverse().times(1000),
    }
    return Prediction(**{**given, **fields})


def test_hours_and_cost_are_those_of_all_jobs():
    found = resources(parse_spec(SPEC), None, parse_prices(PRICES))
    assert (found.gpus, found.cpus, found.nodes) == (24, 3 * 2 * 16 + 2, 7)
    assert found.cost_of_hour == pytest.approx(24 * 2.0 + 2 * 0.01)
    told = with_resources(prediction(), found)
    assert told.gpu_hours == Interval(low=12, likely=24, high=48) and told.cost is not None
    assert "24.0 (12.0 to 48.0) GPU-hours" in "\n".join(lines(told)) and "EUR" in "\n".join(lines(told))


def test_workers_that_are_there_count_rather_than_those_of_the_spec():
    found = resources(parse_spec(SPEC), {"large": 1}, None)
    assert (found.gpus, found.nodes, found.cost_of_hour) == (8, 3, None)


def test_no_cost_is_said_where_a_partition_has_no_price():
    prices = parse_prices('currency = "EUR"\n[[partition]]\nname = "cpu"\ncpu_hour = 0.01\n')
    assert resources(parse_spec(SPEC), None, prices).cost_of_hour is None


def test_it_is_kept_and_read_again(tmp_path):
    ledger = tmp_path / "out.ledger"
    assert read_prediction(ledger) is None
    write_prediction(ledger, prediction())
    assert read_prediction(ledger) == prediction()
    (ledger / "prediction.json").write_text('{"version": 9}')
    assert read_prediction(ledger) is None


def span(until, rows, seconds=10.0):
    return Span(until=until, seconds=seconds, rows=rows)


def test_what_was_achieved_counts_from_the_prediction_on_and_without_pauses():
    spans = [span(100.0, 500), span(110.0, 2), span(120.0, 0), span(130.0, 3)]
    found = achieved(prediction(), spans)
    assert found is not None and (found.rows, found.seconds) == (5, 20.0)
    assert found.ratio == pytest.approx(5 / 1000 * 3600 / 20) and found.is_in_range
    assert "within the range" in found.words()
    slow = achieved(prediction(), [span(1000.0, 5, 900.0)])
    assert slow is not None and not slow.is_in_range and "outside" in slow.words()


def test_drivers_that_work_at_the_same_time_share_it():
    found = achieved(prediction(), [span(110.0, 5), span(110.0, 5), span(115.0, 5)])
    assert found is not None and (found.rows, found.seconds) == (15, 15.0)


def test_a_span_that_began_before_counts_in_part():
    found = achieved(prediction(), [span(105.0, 10)])
    assert found is not None and (found.rows, found.seconds) == (5, 5.0)


def test_nothing_was_achieved_of_what_was_not_predicted():
    assert achieved(None, [span(110.0, 5)]) is None
    assert achieved(prediction(seconds=None), [span(110.0, 5)]) is None
    assert achieved(prediction(), [span(90.0, 5)]) is None


def test_a_small_sample_is_called_rough():
    rough = forecast(simulated.run([100] * 30, 64), 500)
    steady = forecast(simulated.run([100, 80, 120] * 100, 8), 500)
    assert rough is not None and steady is not None
    assert any("rough" in line for line in lines(of_sample(rough, 500, 30, now=1.0)))
    told = of_sample(steady, 500, 300, now=1.0)
    assert told.remarks == () and told.rows == 500 and told.rows_per_s is not None
    assert told.rows_per_s.likely == pytest.approx(8 / 0.024 / 100, rel=0.05)


def test_an_unknown_speed_is_said():
    told = lines(prediction(seconds=None, rows_per_s=None, basis="--sample 200 measures it"))
    assert "speed       unknown: --sample 200 measures it" in told and not any("time" in line for line in told)
