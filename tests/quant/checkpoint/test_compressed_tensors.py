"""Checkpoints that the compressed-tensors library itself has made."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from compressed_tensors.compressors import ModelCompressor
from compressed_tensors.quantization import QuantizationConfig, apply_quantization_config
from compressed_tensors.quantization.utils import calculate_qparams
from transformers import PreTrainedModel

from slurminfer.core.errors import CorruptModelError, UnsupportedModelError
from slurminfer.quant.checkpoint.quantized import GroupQuantized
from slurminfer.quant.checkpoint.schemes.compressed_tensors import CompressedTensorsScheme
from slurminfer.quant.checkpoint.weights import Weights

LAYER = "model.layers.1.mlp.up_proj"
Compress = Callable[..., tuple[Path, torch.Tensor]]
INT8_INPUTS = {"num_bits": 8, "type": "int", "strategy": "token", "dynamic": True}
FP8_INPUTS = {"num_bits": 8, "type": "float", "strategy": "token", "dynamic": True}


def extremes(weight: torch.Tensor, args: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """The least and the greatest value of what shares a scale, in the shape of the scales."""
    outputs, inputs = weight.shape
    if args.strategy == "tensor":
        return weight.min().view(1), weight.max().view(1)
    rows, columns = {"channel": (1, inputs), "group": (1, args.group_size), "block": args.block_structure}[
        args.strategy
    ]
    parts = weight.view(outputs // rows, rows, inputs // columns, columns)
    return parts.amin((1, 3)), parts.amax((1, 3))


def calibrate(model: Any) -> None:
    """Sets the scales and zero points of all quantized layers."""
    for module in model.modules():
        if scheme := getattr(module, "quantization_scheme", None):
            scale, zero = calculate_qparams(*extremes(module.weight, scheme.weights), scheme.weights)
            module.weight_scale.data.copy_(scale)
            module.weight_zero_point.data.copy_(zero)


@pytest.fixture
def compress(
    tmp_path: Path, model: PreTrainedModel, transformers_logits: Callable[[PreTrainedModel], torch.Tensor]
) -> Compress:
    """Has the library quantize and save the model; its directory, and the logits with the weights that it decompresses.

    `weights` and `inputs` are a group's arguments; lm_head is ignored.
    """

    def compress(
        weights: dict[str, Any], inputs: dict[str, Any] | None = None, **save: Any
    ) -> tuple[Path, torch.Tensor]:
        group = {"targets": ["Linear"], "weights": weights, "input_activations": inputs}
        # A plain model is the reference: where inputs are quantized, the library's forward rounds them too.
        plain = type(model)(model.config).eval()
        quantized = QuantizationConfig(config_groups={"group_0": group}, ignore=["lm_head"])
        apply_quantization_config(model, quantized, show_progress=False)
        calibrate(model)
        compressor = ModelCompressor.from_pretrained_model(model)
        compressor.compress_model(model)
        model.save_pretrained(tmp_path, **save)
        compressor.update_config(str(tmp_path))
        compressor.decompress_model(model)
        state = model.state_dict()
        plain.load_state_dict({name: state[name] for name in plain.state_dict()})
        return tmp_path, transformers_logits(plain)

    return compress


@pytest.mark.parametrize(
    ("weights", "inputs", "format"),
    [
        ({"num_bits": 4, "strategy": "group", "group_size": 32}, None, "pack-quantized"),
        ({"num_bits": 4, "strategy": "group", "group_size": 16, "symmetric": False}, None, "pack-quantized"),
        ({"num_bits": 4, "strategy": "channel"}, None, "pack-quantized"),
        ({"num_bits": 4, "strategy": "channel", "symmetric": False}, None, "pack-quantized"),
        ({"num_bits": 8, "strategy": "group", "group_size": 32}, None, "pack-quantized"),
        ({"num_bits": 8, "strategy": "channel", "symmetric": False}, None, "pack-quantized"),
        ({"num_bits": 4, "strategy": "group", "group_size": 32, "actorder": "weight"}, None, "pack-quantized"),
        ({"num_bits": 8, "strategy": "channel"}, INT8_INPUTS, "int-quantized"),
        ({"num_bits": 8, "strategy": "channel", "symmetric": False}, INT8_INPUTS, "int-quantized"),
        ({"num_bits": 8, "strategy": "tensor"}, INT8_INPUTS, "int-quantized"),
        ({"num_bits": 8, "type": "float", "strategy": "channel"}, FP8_INPUTS, "float-quantized"),
        ({"num_bits": 8, "type": "float", "strategy": "tensor"}, FP8_INPUTS, "float-quantized"),
        ({"num_bits": 8, "type": "float", "strategy": "block", "block_structure": [16, 32]}, None, "naive-quantized"),
        ({"num_bits": 8, "type": "float", "strategy": "channel"}, None, "naive-quantized"),
    ],
)
def test_the_logits_are_those_of_the_library_s_weights(compress: Compress, logits, weights, inputs, format):
    path, expected = compress(weights, inputs)
    assert json.loads((path / "config.json").read_text())["quantization_config"]["format"] == format
    torch.testing.assert_close(logits(path), expected, rtol=1e-4, atol=1e-4)


def test_a_model_in_shards(compress: Compress, logits):
    path, expected = compress({"num_bits": 4, "strategy": "group", "group_size": 32}, max_shard_size="20KB")
    assert len(list(path.glob("*.safetensors"))) > 2
    torch.testing.assert_close(logits(path), expected, rtol=1e-4, atol=1e-4)


def test_the_act_order_of_older_checkpoints(compress: Compress, logits, edit, redescribe):
    """`weight_g_idx`, which the library no longer writes: its column's group, codes in the inputs' order."""
    path, _ = compress({"num_bits": 4, "strategy": "group", "group_size": 32})
    plain = logits(path)
    config = json.loads((path / "config.json").read_text())["quantization_config"]
    config["config_groups"]["group_0"]["weights"]["actorder"] = "group"
    redescribe(path, config)

    def reverse_groups(tensors: dict[str, torch.Tensor]) -> None:
        for name in [name for name in tensors if name.endswith(".weight_packed")]:
            layer = name.removesuffix(".weight_packed")
            tensors[f"{layer}.weight_scale"] = tensors[f"{layer}.weight_scale"].flip(1).contiguous()
            groups = tensors[f"{layer}.weight_scale"].shape[1]
            tensors[f"{layer}.weight_g_idx"] = (groups - 1 - torch.arange(groups * 32) // 32).int()

    edit(path, reverse_groups)
    torch.testing.assert_close(logits(path), plain, rtol=1e-4, atol=1e-4)
    weight = Weights(path, torch.float32, CompressedTensorsScheme.parse(config, "")).linear(LAYER, 96, 64)
    assert isinstance(weight, GroupQuantized) and weight.order is not None
    assert weight.order.tolist() == [*range(32, 64), *range(32)]


def described(format: str = "pack-quantized", **changes: Any) -> dict[str, Any]:
    weights = {"num_bits": 4, "type": "int", "strategy": "group", "group_size": 32, "symmetric": True}
    group = {"targets": ["Linear"], "weights": weights | changes}
    return {"quant_method": "compressed-tensors", "format": format, "config_groups": {"group_0": group}}


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (described("nvfp4-pack-quantized", type="float"), "'nvfp4-pack-quantized', 4-bit float.*supported: pack-quant"),
        (described(num_bits=3), "3-bit int weights by group.*4 or 8-bit int by group, channel"),
        (described(strategy="tensor"), "by tensor"),
        (described("int-quantized"), "'int-quantized', 4-bit int"),
        (described("float-quantized", type="float", num_bits=8), "8-bit float weights by group"),
        (described() | {"config_groups": {"a": {"weights": {}}, "b": {}}}, r"2 config_groups \(a, b\); supported: one"),
        (described() | {"config_groups": {"W4A16": ["Linear"]}}, "W4A16.*one that describes weights"),
        (described() | {"sparsity_config": {"format": "sparse-24-bitmask"}}, "with sparsity_config"),
        (described() | {"transform_config": {"config_groups": {}}}, "with transform_config"),
    ],
)
def test_what_is_not_read_is_named_with_what_is(config, said):
    with pytest.raises(UnsupportedModelError, match=rf"config\.json: compressed-tensors.*{said}"):
        CompressedTensorsScheme.parse(config, "config.json")


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (described(group_size=0), "group size = 0: expected a positive integer"),
        (described("float-quantized", type="float", num_bits=8, strategy="block"), "block size = None: expected two"),
        (described() | {"config_groups": None}, "config_groups = None"),
    ],
)
def test_senseless_values_are_named(config, said):
    with pytest.raises(CorruptModelError, match=said):
        CompressedTensorsScheme.parse(config, "config.json")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.pop(f"{LAYER}.weight_scale"), rf"{LAYER}\.weight_scale is missing"),
        (lambda t: t.pop(f"{LAYER}.weight_zero_point"), rf"{LAYER}\.weight_zero_point is missing"),
        (lambda t: t.pop(f"{LAYER}.weight_shape"), rf"{LAYER}\.weight_shape is missing"),
        (lambda t: t[f"{LAYER}.weight_shape"].fill_(64), rf"{LAYER}\.weight_shape says \(64, 64\), config\.json says"),
        (lambda t: t.update({f"{LAYER}.weight_packed": torch.ones(96, 8)}), "weight_packed is float32, expected int32"),
    ],
)
def test_damage_is_named(compress: Compress, logits, edit, change, said):
    path, _ = compress({"num_bits": 4, "strategy": "group", "group_size": 32, "symmetric": False})
    edit(path, change)
    with pytest.raises(CorruptModelError, match=said):
        logits(path)


def test_integers_without_their_scales_are_refused(compress: Compress, logits, edit):
    path, _ = compress({"num_bits": 8, "strategy": "channel"}, INT8_INPUTS)
    edit(path, lambda tensors: tensors.pop(f"{LAYER}.weight_scale"))
    with pytest.raises(CorruptModelError, match=rf"{LAYER}\.weight is int8, expected bfloat16"):
        logits(path)
