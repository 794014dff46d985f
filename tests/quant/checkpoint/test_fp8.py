"""FP8 checkpoints: a scale for every block, every output or the whole weight."""

from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from slurminfer.core.errors import CorruptModelError, UnsupportedModelError
from slurminfer.quant.checkpoint.schemes.fp8 import Fp8Scheme
from slurminfer.quant.checkpoint.weights import Weights

LAYER = "model.layers.1.mlp.up_proj"
FP8_MAX = 448.0
BLOCK = (40, 24)  # divides neither the outputs nor the inputs of any layer
DYNAMIC = {"quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic"}
STATIC = {"quant_method": "fp8", "activation_scheme": "static", "ignored_layers": ["lm_head"]}


def by_block(name: str, weight: torch.Tensor) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    stored, dense = torch.empty(weight.shape, dtype=torch.float8_e4m3fn), torch.empty(weight.shape)
    scales = torch.empty(-(-weight.shape[0] // BLOCK[0]), -(-weight.shape[1] // BLOCK[1]))
    for i, rows in enumerate(range(0, weight.shape[0], BLOCK[0])):
        for j, columns in enumerate(range(0, weight.shape[1], BLOCK[1])):
            at = slice(rows, rows + BLOCK[0]), slice(columns, columns + BLOCK[1])
            scales[i, j] = weight[at].abs().max() / FP8_MAX
            stored[at] = (weight[at] / scales[i, j]).to(torch.float8_e4m3fn)
            dense[at] = stored[at].float() * scales[i, j]
    return {"weight": stored, "weight_scale_inv": scales}, dense


def scaled(*shape: int, rows: bool = False, name: str = "weight_scale"):
    def quantize(layer: str, weight: torch.Tensor) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        most = weight.abs().amax(1, keepdim=True) if rows else weight.abs().max().view(1, 1)
        scale = most / FP8_MAX
        stored = (weight / scale).to(torch.float8_e4m3fn)
        tensors = {"weight": stored, name: scale.view(shape), "input_scale": torch.tensor(0.5)}
        return tensors, stored.float() * scale

    return quantize


@pytest.mark.parametrize(
    ("quantize", "config"),
    [
        (by_block, DYNAMIC | {"weight_block_size": list(BLOCK)}),
        (scaled(), STATIC),
        (scaled(1), DYNAMIC | {"weight_block_size": None}),
        (scaled(name="weight_scale_inv"), DYNAMIC),
        (scaled(-1, rows=True), DYNAMIC),
        (scaled(-1, 1, rows=True), DYNAMIC),
    ],
)
@pytest.mark.parametrize("shards", [False, True])
def test_the_logits_are_those_of_the_dequantized_weights(store, logits, quantize, config, shards):
    path, expected = store(quantize, config, shards=shards)
    torch.testing.assert_close(logits(path), expected, rtol=1e-4, atol=1e-4)


def test_an_example_by_hand(tmp_path):
    values = torch.tensor([[1.0, -2.0, 448.0], [0.5, 0.0, -16.0]])
    scales = torch.tensor([[2.0, 0.25]])
    save_file(
        {"x.weight": values.to(torch.float8_e4m3fn), "x.weight_scale_inv": scales}, tmp_path / "model.safetensors"
    )
    weight = Weights(tmp_path, torch.float32, Fp8Scheme((128, 2))).linear("x", 2, 3)
    assert isinstance(weight, torch.Tensor)
    assert weight.tolist() == [[2.0, -4.0, 112.0], [1.0, 0.0, -4.0]]


def test_another_float_format_is_named():
    with pytest.raises(UnsupportedModelError, match=r"config\.json: FP8 with fmt = 'e5m2'; supported: 'e4m3'"):
        Fp8Scheme.parse(DYNAMIC | {"fmt": "e5m2"}, "config.json")


@pytest.mark.parametrize("block", [128, [128], [128, 0], ["a", "b"]])
def test_a_senseless_block_is_named(block):
    with pytest.raises(CorruptModelError, match=r"config\.json: FP8 weight_block_size = .*two positive integers"):
        Fp8Scheme.parse(DYNAMIC | {"weight_block_size": block}, "config.json")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.pop(f"{LAYER}.weight_scale"), rf"{LAYER}\.weight is float8_e4m3fn, expected bfloat16 or"),
        (lambda t: t.pop(f"{LAYER}.weight"), rf"{LAYER}\.weight is missing"),
        (lambda t: t.update({f"{LAYER}.weight_scale": torch.ones(3)}), rf"{LAYER}\.weight_scale has shape \(3,\)"),
        (lambda t: t.update({f"{LAYER}.weight": torch.ones(96, 64)}), rf"{LAYER}\.weight is float32, expected float8"),
    ],
)
def test_damage_is_named(store, logits, edit, change, said):
    path, _ = store(scaled(1), DYNAMIC)
    edit(path, change)
    with pytest.raises(CorruptModelError, match=said):
        logits(path)


def test_blocks_of_another_size_than_config_json_has_are_named(store, logits, redescribe):
    path, _ = store(by_block, DYNAMIC | {"weight_block_size": list(BLOCK)})
    redescribe(path, DYNAMIC | {"weight_block_size": [128, 128]})
    with pytest.raises(CorruptModelError, match=r"weight_scale_inv has shape \(2, 3\), config\.json says \(1, 1\)"):
        logits(path)


def test_weights_of_8_bits_that_config_json_says_nothing_of_are_refused(store, logits, redescribe):
    path, _ = store(scaled(1), DYNAMIC)
    redescribe(path, {})
    with pytest.raises(CorruptModelError, match=r"q_proj\.weight is float8_e4m3fn, expected"):
        logits(path)


def test_parsing_takes_both_spellings() -> None:
    configs: list[dict[str, Any]] = [DYNAMIC, STATIC, DYNAMIC | {"weight_block_size": [128, 64]}]
    assert [Fp8Scheme.parse(config, "").block for config in configs] == [None, None, (128, 64)]
