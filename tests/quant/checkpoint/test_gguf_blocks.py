"""Blocks of a GGUF file as the native engine reads them."""

import struct

import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType
from gguf.quants import dequantize, quantize
from safetensors.torch import save_file

from slurminfer.core.errors import CorruptModelError, UnsupportedModelError
from slurminfer.quant.checkpoint.quantized import GroupQuantized
from slurminfer.quant.checkpoint.schemes.gguf import GgufScheme
from slurminfer.quant.checkpoint.weights import Weights


@pytest.fixture
def read(tmp_path):
    """Reads a layer "x" that is stored in the given blocks."""

    def read(blocks: torch.Tensor, type: str, outputs: int, inputs: int) -> GroupQuantized:
        save_file({"x.blocks": blocks}, tmp_path / "model.safetensors")
        weight = Weights(tmp_path, torch.float32, GgufScheme.parse({"types": {"x": type}}, "")).linear(
            "x", outputs, inputs
        )
        assert isinstance(weight, GroupQuantized)
        return weight

    return read


@pytest.mark.parametrize(("type", "bits"), [("Q4_0", 4), ("Q4_1", 4), ("Q8_0", 8)])
def test_weights_are_those_that_the_gguf_package_dequantizes(read, type, bits):
    kind = GGMLQuantizationType[type]
    blocks = quantize(np.random.default_rng(0).normal(size=(48, 160)).astype(np.float32), kind)
    weight = read(torch.from_numpy(blocks), type, 48, 160)
    assert (weight.bits, weight.group_size, weight.codes.dtype) == (bits, 32, torch.uint8)
    np.testing.assert_allclose(weight.dequantize().numpy(), dequantize(blocks, kind), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("type", "block", "expected"),
    [
        ("Q4_0", struct.pack("<e16B", 0.5, *range(0x80, 0x90)), [(i - 8) * 0.5 for i in range(16)] + [0.0] * 16),
        ("Q4_1", struct.pack("<ee16B", 0.5, -2.0, *range(0x80, 0x90)), [i * 0.5 - 2 for i in range(16)] + [2.0] * 16),
        ("Q8_0", struct.pack("<e32b", 0.5, *range(-16, 16)), [i * 0.5 for i in range(-16, 16)]),
    ],
)
def test_a_block_by_hand(read, type, block, expected):
    weight = read(torch.frombuffer(bytearray(block), dtype=torch.uint8).view(1, -1), type, 1, 32)
    assert weight.dequantize().tolist() == [expected]


@pytest.mark.parametrize(
    ("blocks", "inputs", "said"),
    [
        (torch.zeros(4, 18, dtype=torch.uint8), 64, r"x\.blocks has shape \(4, 18\), config\.json says \(4, 36\)"),
        (torch.zeros(4, 36), 64, r"x\.blocks is float32, expected uint8"),
        (torch.zeros(4, 18, dtype=torch.uint8), 40, "x has 40 inputs: no multiple of the 32"),
    ],
)
def test_damage_is_named(read, blocks, inputs, said):
    with pytest.raises(CorruptModelError, match=said):
        read(blocks, "Q4_0", 4, inputs)


def test_other_types_are_named_with_the_supported():
    with pytest.raises(
        UnsupportedModelError, match=r"config\.json: GGUF blocks of type IQ2_XXS; supported: Q4_0, Q4_1"
    ):
        GgufScheme.parse({"types": {"x": "IQ2_XXS", "y": "Q4_0"}}, "config.json")


@pytest.mark.parametrize("types", [None, "Q4_0"])
def test_missing_types_are_named(types):
    with pytest.raises(CorruptModelError, match=r"config\.json: GGUF types = "):
        GgufScheme.parse({"types": types}, "config.json")
