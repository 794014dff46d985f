"""Rounding to groups: what a grid can hold it holds exactly, and everything else within half a step."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from slurminfer.quant.awq.rounding import fit, grouped, make_grid

GROUP = 32


def weights(seed, spread=1.0):
    generator = torch.Generator().manual_seed(seed)
    return grouped(torch.randn(6, 3 * GROUP, generator=generator) * spread, GROUP)


@given(st.integers(0, 2**32), st.sampled_from([1e-3, 0.02, 1.0, 30.0]))
def test_each_weight_moves_by_half_a_step_inside_the_range(seed, spread):
    groups = weights(seed, spread)
    grid = make_grid(*fit(groups))
    steps = (grid.round(groups) - groups).abs() / grid.scales.unsqueeze(-1)
    # The zero point is rounded as well, and the scale by 1 in 512: the ends of the range can miss by a little more.
    assert (steps <= 0.6).all()
    position = groups / grid.scales.unsqueeze(-1) + grid.zeros.unsqueeze(-1)
    assert (steps[(position > 0) & (position < 15)] <= 0.5001).all()


@given(st.integers(0, 2**32))
def test_codes_and_rounded_values_say_the_same(seed):
    groups = weights(seed)
    grid = make_grid(*fit(groups))
    codes = grid.codes(groups)
    assert codes.max() <= 15
    assert torch.equal((codes.float() - grid.zeros.unsqueeze(-1)) * grid.scales.unsqueeze(-1), grid.round(groups))


@given(st.integers(0, 2**32), st.sampled_from([1e-6, 0.02, 100.0]))
def test_float16_and_bfloat16_hold_the_scales(seed, spread):
    grid = make_grid(*fit(weights(seed, spread)))
    assert torch.equal(grid.scales.half().float(), grid.scales)
    assert torch.equal(grid.scales.bfloat16().float(), grid.scales)


def test_rounding_twice_changes_nothing():
    grid = make_grid(*fit(weights(1)))
    once = grid.round(weights(1))
    assert torch.equal(grid.round(once), once)


def test_a_group_of_one_value_keeps_it():
    for value in (0.5, -0.5, 0.0):
        groups = torch.full((1, 1, GROUP), value)
        assert torch.allclose(make_grid(*fit(groups)).round(groups), groups, rtol=2**-8)
