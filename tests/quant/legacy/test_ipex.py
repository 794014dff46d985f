"""IPEX's int4 linear against float32, in the legacy environment; which weights it takes, in any."""

import json
from dataclasses import replace

import pytest
import torch

from slurminfer.nodes.native.model.linears.ipex import available_for
from slurminfer.quant.checkpoint.quantized import GroupQuantized

pytestmark = pytest.mark.process

COMPARE = """
import json
import torch
from slurminfer.nodes.native.model.linears.ipex import IpexInt4Linear, available_for
from slurminfer.quant.checkpoint.quantized import GroupQuantized

for outputs, inputs, group in [(64, 64, 64), (192, 576, 64), (960, 576, 64), (96, 256, 32), (576, 1536, 128)]:
    scales = torch.rand(outputs, inputs // group) * 0.01 + 0.001
    zeros = torch.randint(0, 16, scales.shape)
    codes = torch.randint(0, 16, (outputs, inputs), dtype=torch.uint8)
    weight = GroupQuantized(codes=codes, scales=scales, offsets=-zeros * scales, bits=4)
    assert available_for(weight)
    for bias in (None, torch.randn(outputs)):
        for dtype in (torch.float32, torch.bfloat16):
            linear = IpexInt4Linear(weight, bias if bias is None else bias.to(dtype))
            for rows in (1, 2, 5, 64, 300):
                x = torch.randn(rows, inputs).to(dtype)
                y = linear(x)
                assert (y.shape, y.dtype) == ((rows, outputs), dtype)
                expected = torch.nn.functional.linear(x.float(), weight.dequantize(), bias)
                print(json.dumps(float((y.float() - expected).norm() / expected.norm())))
"""


def _weight(outputs: int = 32) -> GroupQuantized:
    """As AWQ has them."""
    scales = torch.rand(outputs, 2) * 0.01 + 0.001
    codes = torch.randint(0, 16, (outputs, 64), dtype=torch.uint8)
    return GroupQuantized(codes=codes, scales=scales, offsets=-torch.randint(0, 16, (outputs, 2)) * scales, bits=4)


@pytest.mark.download
@pytest.mark.timeout(600)
def test_computes_the_layer_up_to_bfloat16(run_legacy):
    distances = [json.loads(line) for line in run_legacy(COMPARE).splitlines()]
    assert len(distances) == 100
    assert max(distances) < 5e-3


def test_whole_zero_points_of_four_bits_fit():
    weight = _weight()
    assert available_for(weight)
    scales, offsets = weight.scales.clone(), weight.offsets.clone()
    scales[3, 1] = offsets[3, 1] = 0  # a group of zeros
    assert available_for(replace(weight, scales=scales, offsets=offsets))


@pytest.mark.parametrize(
    "weight",
    [
        replace(_weight(), offsets=torch.rand(32, 2)),  # a minimum, as in GGUF's Q4_1
        GroupQuantized(codes=_weight().codes, scales=torch.ones(32, 2), offsets=torch.full((32, 2), -16.0), bits=4),
        replace(_weight(), bits=8),
        _weight(outputs=40),
    ],
    ids=["any offset", "zero point 16", "8 bits", "40 outputs"],
)
def test_other_weights_do_not_fit(weight):
    assert not available_for(weight)
