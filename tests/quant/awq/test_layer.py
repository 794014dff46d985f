"""The dense layer is transformers' layer, and folding scales leaves it as it is."""

from typing import Any

import pytest
import torch

from slurminfer.quant.awq import dense
from slurminfer.quant.awq.calibrate import Calibration
from slurminfer.quant.awq.dense import INPUTS, DenseLayer
from slurminfer.quant.awq.layer import _scaled, fold
from slurminfer.quant.awq.workspace import WHOLE, Hidden
from slurminfer.quant.checkpoint.config import read_config
from slurminfer.quant.checkpoint.tensors import linear_shape, tensor_shapes

VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {}),
    "llama with biases": ("llama", {"attention_bias": True, "mlp_bias": True}),
    "llama multi-head": ("llama", {"num_key_value_heads": 4, "head_dim": 24}),
    "mistral with a window": ("mistral", {"sliding_window": 9}),
    "qwen2": ("qwen2", {}),
    "qwen3": ("qwen3", {"head_dim": 32, "attention_bias": True}),
}


@pytest.fixture(autouse=True)
def _float32(monkeypatch):
    monkeypatch.setattr(dense, "native_dtype", lambda device: torch.float32)


@pytest.fixture(params=list(VARIANTS))
def model(request, make, tmp_path):
    kind, changes = VARIANTS[request.param]
    return tmp_path / "model", make(tmp_path / "model", kind, **changes)


@pytest.fixture
def calibration(model):
    path, _ = model
    return Calibration(path, read_config(path), torch.randint(0, 300, (3, 40)), torch.device("cpu"))


@torch.inference_mode()
def test_it_computes_what_transformers_computes(model, calibration, tmp_path):
    _, reference = model
    states = Hidden([tmp_path / "0"])
    calibration.embed(WHOLE, states)
    for index in range(4):
        into = Hidden([tmp_path / str(index + 1)])
        calibration.forward(index, calibration.layer(index), states, into)
        states = into
    found = torch.cat(list(states.read(2, 40, 64)))
    expected = []
    reference.model.norm.register_forward_pre_hook(lambda module, inputs: expected.append(inputs[0]))
    reference(calibration.tokens)
    torch.testing.assert_close(found, expected[0], atol=1e-4, rtol=1e-4)


@torch.inference_mode()
def test_what_goes_into_the_linear_layers_is_observed(model, calibration):
    _, reference = model
    seen: dict[str, torch.Tensor] = {}
    expected: dict[str, torch.Tensor] = {}
    layer = reference.model.layers[0]
    for name in ("self_attn.v_proj", "self_attn.o_proj", "mlp.up_proj", "mlp.down_proj"):
        layer.get_submodule(name).register_forward_pre_hook(lambda module, x, name=name: expected.update({name: x[0]}))
    reference(calibration.tokens)
    states = reference.model.embed_tokens(calibration.tokens)
    DenseLayer(calibration.config, 0, calibration.layer(0))(states, calibration._rotation(), seen.__setitem__)
    for source, name in zip(INPUTS, expected, strict=True):
        torch.testing.assert_close(seen[source], expected[name], atol=1e-4, rtol=1e-4)


@torch.inference_mode()
def test_folded_scales_change_nothing(calibration):
    tensors, config = calibration.layer(1), calibration.config
    scales = {name: torch.rand(linear_shape(config, INPUTS[name][0])[1]) + 0.5 for name in _scaled(config)}
    states, rotation = torch.randn(2, 40, 64), calibration._rotation()
    before = DenseLayer(config, 1, tensors)(states, rotation)
    after = DenseLayer(config, 1, fold(tensors, scales))(states, rotation)
    torch.testing.assert_close(after, before, atol=1e-3, rtol=1e-3)
    assert ("heads" in scales) == (config.num_heads == config.num_kv_heads)


def test_the_shapes_are_those_of_the_model(model):
    path, reference = model
    found = {name: tuple(tensor.shape) for name, tensor in reference.model.layers[2].named_parameters()}
    assert tensor_shapes(read_config(path)) == found
