"""A rank's part of a model directory, read as if it were a whole one."""

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch

from ....core.errors import UnsupportedModelError
from ....quant.checkpoint.config import ModelConfig
from ....quant.checkpoint.quantized import GroupQuantized
from ....quant.checkpoint.weights import Weights
from .shard import Shard

_LAYER = "model.layers."


class ShardWeights:
    """Names and shapes are those of the part: layer 0 is its first, q_proj has as many outputs as it has heads.

    Whole linear layers are read and cut: formats pack outputs and inputs each in a way of its own.
    """

    def __init__(self, model: Path, dtype: torch.dtype, config: ModelConfig, shard: Shard) -> None:
        """`config` is the whole model's. Raises ModelNotFoundError, CorruptModelError."""
        self._whole, self.dtype = Weights(model, dtype, config.quantization), dtype
        self._shard, size = shard, config.head_dim
        heads, kv_heads = _scaled(shard.heads, size), _scaled(shard.kv_heads, size)
        sizes = (config.num_heads * size, config.num_kv_heads * size, config.intermediate_size)
        # Layer -> the range of its outputs, or of its inputs, and how many the whole one has.
        self._outputs: Mapping[str, tuple[range, int]] = {
            "q_proj": (heads, sizes[0]), "k_proj": (kv_heads, sizes[1]), "v_proj": (kv_heads, sizes[1]),
            "gate_proj": (shard.inner, sizes[2]), "up_proj": (shard.inner, sizes[2]),
            "lm_head": (shard.vocab, config.vocab_size),
        }  # fmt: skip
        self._inputs: Mapping[str, tuple[range, int]] = {
            "o_proj": (heads, sizes[0]), "down_proj": (shard.inner, sizes[2]),
        }  # fmt: skip

    def read(self, name: str, *shape: int) -> torch.Tensor:
        """See `Weights.read`. What all ranks add, biases of o_proj and down_proj, only the first of them has."""
        module, _, kind = name.rpartition(".")
        layer = module.rpartition(".")[2]
        if kind == "bias" and layer in self._inputs:
            bias = self._whole.read(self._whole_name(name), *shape)
            return bias if self._shard.tensor_rank == 0 else torch.zeros_like(bias)
        if layer not in self._outputs:
            return self._whole.read(self._whole_name(name), *shape)
        part, size = self._outputs[layer]
        return _cut(self._whole.read(self._whole_name(name), size, *shape[1:]), 0, part)

    def linear(self, prefix: str, outputs: int, inputs: int) -> torch.Tensor | GroupQuantized:
        """See `Weights.linear`. Raises UnsupportedModelError for inputs in act-order, which no cut keeps together."""
        layer, name = prefix.rpartition(".")[2], self._whole_name(prefix)
        if layer in self._inputs:
            part, size = self._inputs[layer]
            weight = self._whole.linear(name, outputs, size)
            return _columns(weight, part, name) if isinstance(weight, GroupQuantized) else _cut(weight, 1, part)
        part, size = self._outputs[layer]
        weight = self._whole.linear(name, size, inputs)
        return _rows(weight, part) if isinstance(weight, GroupQuantized) else _cut(weight, 0, part)

    def tied_head(self, embedding: torch.Tensor) -> torch.Tensor:
        """See `Weights.tied_head`."""
        return _cut(embedding, 0, self._shard.vocab)

    def _whole_name(self, name: str) -> str:
        if not name.startswith(_LAYER):
            return name
        index, _, rest = name.removeprefix(_LAYER).partition(".")
        return f"{_LAYER}{int(index) + self._shard.layers.start}.{rest}"


def _scaled(part: range, size: int) -> range:
    return range(part.start * size, part.stop * size)


def _cut(weight: torch.Tensor, dimension: int, part: range) -> torch.Tensor:
    """A copy: a view would keep the whole in memory."""
    return weight.narrow(dimension, part.start, len(part)).clone(memory_format=torch.contiguous_format)


def _rows(weight: GroupQuantized, part: range) -> GroupQuantized:
    codes, scales, offsets = (_cut(x, 0, part) for x in (weight.codes, weight.scales, weight.offsets))
    return replace(weight, codes=codes, scales=scales, offsets=offsets)


def _columns(weight: GroupQuantized, part: range, name: str) -> GroupQuantized:
    """Where a cut goes through a group, all groups become shorter, with the same scales."""
    if weight.order is not None:
        raise UnsupportedModelError(f"{name}: GPTQ with act-order; tensor_parallel must be 1 for it")
    group = math.gcd(weight.group_size, part.start, part.stop)
    groups = range(part.start // group, part.stop // group)
    times = weight.group_size // group
    scales, offsets = (_cut(x.repeat_interleave(times, 1), 1, groups) for x in (weight.scales, weight.offsets))
    return replace(weight, codes=_cut(weight.codes, 1, part), scales=scales, offsets=offsets)
