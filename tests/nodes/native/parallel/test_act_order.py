"""GPTQ with act-order in parts: every code is some rank's, with its own group's scale and offset."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from slurminfer.nodes.native.model.fused.pack import fits
from slurminfer.nodes.native.model.linears.table import Kernels, make_linear
from slurminfer.nodes.native.model.parallel.shard import make_shard
from slurminfer.nodes.native.model.parallel.weights import ShardWeights
from slurminfer.quant.checkpoint.config import ModelConfig, read_config
from slurminfer.quant.checkpoint.quantized import GroupQuantized
from slurminfer.quant.checkpoint.weights import Weights

from ....support.quantized_models import relative_error, to_act_order
from ..model.conftest import make_model
from ..model.test_linears import BFLOAT16_ERROR

LAYER = "model.layers.1."


@pytest.fixture(scope="module", params=[32, 96])
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory) -> tuple[Path, ModelConfig]:
    """Three layers, 12 heads of 16 over 6 of keys and values, 192 neurons, in groups of 32 or 96 inputs."""
    path = tmp_path_factory.mktemp("model")
    shape = {"hidden_size": 192, "intermediate_size": 192, "num_attention_heads": 12, "num_key_value_heads": 6}
    make_model(path, "llama", shape)
    to_act_order(path, group_size=request.param)
    return path, read_config(path)


def parts(checkpoint: tuple[Path, ModelConfig], ranks: int) -> list[ShardWeights]:
    path, config = checkpoint
    return [ShardWeights(path, torch.float32, config, make_shard(config, ranks, 1, rank)) for rank in range(ranks)]


def linear(weights: ShardWeights | Weights, name: str, *shape: int) -> GroupQuantized:
    found = weights.linear(LAYER + name, *shape)
    assert isinstance(found, GroupQuantized)
    return found


@pytest.mark.parametrize("ranks", [2, 3, 5])
def test_inputs_of_a_rank_keep_their_codes_and_scales(checkpoint, ranks):
    path, config = checkpoint
    size = config.num_heads * config.head_dim
    whole = linear(Weights(path, torch.float32, config.quantization), "self_attn.o_proj", config.hidden_size, size)
    found = [linear(part, "self_attn.o_proj", config.hidden_size, size) for part in parts(checkpoint, ranks)]
    assert torch.equal(torch.cat([part.dequantize() for part in found], 1), whole.dequantize())
    assert all(fits(part) for part in found)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_columns_of_no_input_add_nothing(checkpoint, dtype):
    _, config = checkpoint
    for part in parts(checkpoint, 3):
        weight = linear(part, "self_attn.o_proj", config.hidden_size, config.num_heads * config.head_dim)
        exact = weight.dequantize().double()
        layer = make_linear([weight], [], dtype, torch.device("cpu"), Kernels())
        for rows in (1, 65):
            x = torch.randn(rows, exact.shape[1]).to(dtype)
            assert relative_error(layer(x), x.double() @ exact.T) < BFLOAT16_ERROR


@pytest.mark.parametrize("ranks", [2, 3])
def test_neurons_go_where_down_proj_has_them(checkpoint, ranks):
    path, config = checkpoint
    x = torch.randn(5, config.hidden_size, dtype=torch.float64)

    def mlp(weights: ShardWeights | Weights, inner: int) -> torch.Tensor:
        gate, up = (
            linear(weights, f"mlp.{name}", inner, config.hidden_size).dequantize().double()
            for name in ("gate_proj", "up_proj")
        )
        down = linear(weights, "mlp.down_proj", config.hidden_size, inner)
        assert isinstance(weights, Weights) or down.order is None
        return (F.silu(x @ gate.T) * (x @ up.T)) @ down.dequantize().double().T

    exact = mlp(Weights(path, torch.float32, config.quantization), config.intermediate_size)
    shares = [mlp(part, len(part._shard.inner)) for part in parts(checkpoint, ranks)]
    torch.testing.assert_close(torch.stack(shares).sum(0), exact)
