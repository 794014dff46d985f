"""The searches find what lowers a layer's output error, and count that error right."""

import pytest
import torch

from slurminfer.quant.awq import search
from slurminfer.quant.awq.rounding import fit, grouped, make_grid
from slurminfer.quant.awq.search import InputStatistics, sample, search_clip, search_scale, squared_error

GROUP = 32


@pytest.fixture(autouse=True)
def _float32(monkeypatch):
    monkeypatch.setattr(search, "native_dtype", lambda device: torch.float32)


@pytest.fixture
def problem():
    """A weight [48, 96]; inputs [500, 96], some channels large, some going together; their statistics."""
    weight = torch.randn(48, 96) * 0.05
    inputs = torch.randn(500, 96) * torch.rand(96).exp()
    inputs[:, :4] *= 20
    inputs[:, 40:60] += inputs[:, 20:40]
    statistics = InputStatistics(96, torch.device("cpu"))
    for batch in inputs.view(5, 100, 96).split(2):
        statistics.add(batch)
    return weight, inputs, statistics


def output_error(difference, inputs):
    return float((inputs.double() @ difference.double().t()).square().sum())


def test_the_error_is_that_of_the_outputs(problem):
    weight, inputs, statistics = problem
    difference = torch.randn_like(weight) * 1e-3
    assert squared_error(difference, statistics.hessian) == pytest.approx(output_error(difference, inputs), rel=1e-3)


def test_statistics_do_not_depend_on_batches(problem):
    _, inputs, statistics = problem
    torch.testing.assert_close(statistics.hessian, inputs.t() @ inputs, rtol=1e-4, atol=1e-2)
    torch.testing.assert_close(statistics.magnitude, inputs.abs().mean(0))


def test_scaled_statistics_are_those_of_divided_inputs(problem):
    _, inputs, statistics = problem
    scales = torch.rand(96) + 0.5
    divided = inputs / scales
    torch.testing.assert_close(statistics.scaled(scales), divided.t() @ divided, rtol=1e-3, atol=1e-2)


def test_scaling_lowers_the_error_where_channels_differ(problem):
    weight, inputs, statistics = problem
    best = search_scale([weight[:16], weight[16:]], statistics, GROUP)
    scaled = grouped(weight * best.values, GROUP)
    with_scale = make_grid(*fit(scaled)).round(scaled).view(weight.shape) / best.values - weight
    plain = grouped(weight, GROUP)
    without = make_grid(*fit(plain)).round(plain).view(weight.shape) - weight
    assert output_error(with_scale, inputs) < 0.6 * output_error(without, inputs)
    assert 0 < best.ratio <= 1


def test_clipping_never_raises_the_error_and_lowers_it_as_a_whole(problem):
    weight, inputs, statistics = problem
    weight[:, ::GROUP] *= 6  # outliers, worth clipping
    groups = grouped(weight, GROUP)
    clipped = search_clip(weight, statistics.hessian, GROUP).round(groups).view(weight.shape) - weight
    plain = make_grid(*fit(groups)).round(groups).view(weight.shape) - weight
    assert output_error(clipped, inputs) < 0.95 * output_error(plain, inputs)


def test_channels_that_are_always_zero_break_nothing():
    weight, statistics = torch.randn(16, 64) * 0.05, InputStatistics(64, torch.device("cpu"))
    inputs = torch.randn(100, 64)
    inputs[:, 10:20] = 0
    weight[:, 30] = 0
    statistics.add(inputs)
    assert search_scale([weight], statistics, GROUP).values.isfinite().all()
    assert search_clip(weight, statistics.hessian, GROUP).scales.isfinite().all()


def test_a_sample_is_spread_over_all_rows():
    rows = torch.arange(1000).view(1000, 1)
    assert torch.equal(sample(rows, 1000), rows)
    few = sample(rows, 300)
    assert 200 <= len(few) <= 300 and few[0] == 0 and few[-1] > 990
