"""GPTQ checkpoints, packed here bit by bit from the description of the format."""

import struct
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from slurminfer.core.errors import CorruptModelError, UnsupportedModelError
from slurminfer.quant.checkpoint.quantized import GroupQuantized
from slurminfer.quant.checkpoint.schemes.gptq import GptqScheme
from slurminfer.quant.checkpoint.weights import Weights

LAYER = "model.layers.1.mlp.up_proj"


def config(**changes: Any) -> dict[str, Any]:
    return {"quant_method": "gptq", "bits": 4, "group_size": 32, "sym": True, "desc_act": False} | changes


def words(columns: list[list[int]], bits: int) -> torch.Tensor:
    """int32 [words, columns]: each column's values one after the other, the lowest bit first."""
    packed = []
    for column in columns:
        stream = [value >> bit & 1 for value in column for bit in range(bits)]
        packed.append([sum(stream[at + i] << i for i in range(32)) for at in range(0, len(stream), 32)])
    return torch.tensor([struct.unpack(f"<{len(p)}i", struct.pack(f"<{len(p)}I", *p)) for p in packed]).int().t()


def packer(described: dict[str, Any], group_of: Any = None, *, g_idx: bool = True):
    """Quantizes by the least and the greatest value of every group; `group_of` gives the groups of so many inputs."""
    bits, shift = described["bits"], 0 if described.get("checkpoint_format") == "gptq_v2" else 1
    size, most = described["group_size"], 2 ** described["bits"] - 1

    def quantize(name: str, weight: torch.Tensor) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        inputs = weight.shape[1]
        groups = group_of(inputs) if group_of else torch.arange(inputs) // (inputs if size == -1 else size)
        scales, zeros, codes = [], [], torch.empty(weight.shape)
        for group in range(int(groups.max()) + 1):
            part = weight[:, groups == group]
            if described["sym"]:
                scale = (part.abs().amax(1) / (most // 2)).half().float()
                zero = torch.full_like(scale, (most + 1) // 2)
            else:
                low = part.amin(1).clamp(max=-0.02)
                scale = ((part.amax(1) - low) / most).half().float()
                zero = (-low / scale).round().clamp(1, most)
            codes[:, groups == group] = (part / scale[:, None] + zero[:, None]).round().clamp(0, most)
            scales.append(scale)
            zeros.append(zero)
        scale, zero = torch.stack(scales, 1), torch.stack(zeros, 1)
        tensors = {
            "qweight": words(codes.int().tolist(), bits),
            "qzeros": words((zero.int().t() - shift).tolist(), bits).t(),
            "scales": scale.t().half(),
            "g_idx": groups.int(),
        }
        if not g_idx:
            del tensors["g_idx"]
        return tensors, (codes - zero[:, groups]) * scale[:, groups]

    return quantize


def shuffled(size: int):
    """Every group has `size` members, anywhere."""
    return lambda inputs: torch.randperm(inputs, generator=torch.Generator().manual_seed(inputs)) // size


@pytest.mark.parametrize(
    ("changes", "group_of"),
    [
        ({}, None),
        ({"bits": 8}, None),
        ({"sym": False, "group_size": 16, "checkpoint_format": "gptq"}, None),
        ({"sym": False, "checkpoint_format": "gptq_v2"}, None),
        ({"bits": 8, "sym": False, "checkpoint_format": "gptq_v2"}, None),
        ({"group_size": -1}, None),
        ({"group_size": 24}, None),  # no divisor of 64: the last group is short
        ({"desc_act": True, "sym": False}, shuffled(32)),
        ({"desc_act": True, "bits": 8, "group_size": 16}, shuffled(16)),
        ({"desc_act": True}, shuffled(40)),  # as many groups as of 32, but not of the same size
    ],
)
def test_the_logits_are_those_of_the_dequantized_weights(store, logits, changes, group_of):
    described = config(**changes)
    path, expected = store(packer(described, group_of), described)
    torch.testing.assert_close(logits(path), expected, rtol=1e-4, atol=1e-4)


def test_a_model_in_two_files_with_a_quantized_head_and_without_g_idx(store, logits):
    described = config()
    path, expected = store(packer(described, g_idx=False), described, layers=("_proj", "lm_head"), shards=True)
    torch.testing.assert_close(logits(path), expected, rtol=1e-4, atol=1e-4)


def test_integers_stay_integers_and_act_order_becomes_an_order(store):
    described = config(desc_act=True)
    path, _ = store(packer(described, shuffled(32)), described)
    weight = Weights(path, torch.float32, GptqScheme.parse(described, "")).linear(LAYER, 96, 64)
    assert isinstance(weight, GroupQuantized) and (weight.bits, weight.group_size) == (4, 32)
    assert weight.order is not None
    assert torch.equal(shuffled(32)(64)[weight.order], torch.arange(64) // 32)


def test_an_example_by_hand(tmp_path):
    """Eight inputs in two groups, eight outputs; version 1, so zero points 7 and 0 mean 8 and 1."""
    first, second = 0x76543210, 0xFEDCBA98 - (1 << 32)
    save_file(
        {
            "x.qweight": torch.tensor([[first, second, *[first] * 6]], dtype=torch.int32),
            "x.qzeros": torch.tensor([[0x77777777], [0]], dtype=torch.int32),
            "x.scales": torch.tensor([[0.5] * 8, [2.0] * 8]).half(),
        },
        tmp_path / "model.safetensors",
    )
    weight = Weights(tmp_path, torch.float32, GptqScheme.parse(config(group_size=4), "")).linear("x", 8, 8)
    assert isinstance(weight, GroupQuantized)
    assert weight.dequantize()[:2].tolist() == [
        [-4.0, -3.5, -3.0, -2.5, 6.0, 8.0, 10.0, 12.0],
        [0.0, 0.5, 1.0, 1.5, 22.0, 24.0, 26.0, 28.0],
    ]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"bits": 3}, "bits = 3"),
        ({"bits": None}, "bits = None"),
        ({"checkpoint_format": "marlin"}, "marlin.*gptq or gptq_v2"),
        ({"pack_dtype": "int16"}, "int16"),
        ({"dynamic": {"-:lm_head": {}, r".*down.*": {"bits": 8}}}, r"'\.\*down\.\*' has bits = 8; supported: 4"),
        ({"dynamic": {r"+:.*down.*": {"group_size": 64}}}, "group_size = 64"),
    ],
)
def test_what_is_not_read_is_named(changes, said):
    with pytest.raises(UnsupportedModelError, match=said):
        GptqScheme.parse(config(**changes), "config.json")


@pytest.mark.parametrize("size", [0, -2, "128", None, True])
def test_a_senseless_group_size_is_named(size):
    with pytest.raises(CorruptModelError, match=r"config\.json: GPTQ group_size = "):
        GptqScheme.parse(config(group_size=size), "config.json")


def test_rules_that_leave_layers_out_are_read():
    assert GptqScheme.parse(config(dynamic={"-:lm_head": {}, "+:.*": {"bits": 4}}), "").bits == 4


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.pop(f"{LAYER}.qzeros"), rf"{LAYER}\.qzeros is missing"),
        (lambda t: t.pop(f"{LAYER}.scales"), rf"{LAYER}\.scales is missing"),
        (lambda t: t.pop(f"{LAYER}.qweight"), rf"{LAYER}\.weight is missing"),
        (lambda t: t.update({f"{LAYER}.qweight": torch.zeros(8, 95).int()}), rf"{LAYER}\.qweight has shape \(8, 95\)"),
        (lambda t: t.update({f"{LAYER}.qzeros": torch.zeros(2, 12)}), rf"{LAYER}\.qzeros is float32, expected int32"),
        (lambda t: t[f"{LAYER}.g_idx"].fill_(2), rf"{LAYER}\.g_idx has values from 2 to 2, expected 0 to 1"),
        (lambda t: t[f"{LAYER}.g_idx"].fill_(-1), rf"{LAYER}\.g_idx has values from -1 to -1"),
    ],
)
def test_damage_is_named(store, logits, edit, change, said):
    path, _ = store(packer(config()), config())
    edit(path, change)
    with pytest.raises(CorruptModelError, match=said):
        logits(path)


def test_another_group_size_than_the_files_is_named(store, logits, redescribe):
    path, _ = store(packer(config()), config())
    redescribe(path, config(group_size=16))
    with pytest.raises(CorruptModelError, match=r"qzeros has shape \(2, 8\), config\.json says \(4, 8\)"):
        logits(path)
