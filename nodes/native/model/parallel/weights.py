"""A rank's part of a model directory, read as if it were a whole one.

Of GPTQ with act-order, neighbouring columns of a weight are inputs that lie anywhere. What each rank then computes is
chosen so that every code keeps its group's scale and offset:

- A rank's neurons are those of neighbouring columns of down_proj, wherever they lie: any will do, as long as each is
  some rank's. Groups stay whole, and down_proj needs no order any more.
- Into o_proj go the rank's heads, which are computed whole. Their inputs are some of every group, of each group another
  number: groups are filled up with columns of no input.
"""

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

import torch

from .....quant.checkpoint.config import ModelConfig
from .....quant.checkpoint.quantized import NO_INPUT, GroupQuantized
from .....quant.checkpoint.tensors import LAYERS, layer_prefix
from .....quant.checkpoint.weights import Weights
from .shard import UNIT, Shard

_Lines: TypeAlias = "range | torch.Tensor"  # neighbours, or int64 numbers of any


class ShardWeights:
    """Names and shapes are those of the part: layer 0 is its first, q_proj has as many outputs as it has heads.

    Whole linear layers are read and cut: formats pack outputs and inputs each in a way of its own.
    """

    def __init__(self, model: Path, dtype: torch.dtype, config: ModelConfig, shard: Shard) -> None:
        """`config` is the whole model's. Raises ModelNotFoundError, CorruptModelError."""
        self._whole, self.dtype = Weights(model, dtype, config.quantization), dtype
        self._config, self._shard, size = config, shard, config.head_dim
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
        self._down: tuple[str, torch.Tensor | GroupQuantized] | None = None  # of the MLP that is being read

    def read(self, name: str, *shape: int) -> torch.Tensor:
        """Read this rank's part of a tensor, as `Weights.read`; `shape` is the part's.

        Biases of o_proj and down_proj, which all ranks would add, are zero at all but the first tensor rank.
        """
        module, _, kind = name.rpartition(".")
        layer = module.rpartition(".")[2]
        if kind == "bias" and layer in self._inputs:
            bias = self._whole.read(self._whole_name(name), *shape)
            return bias if self._shard.tensor_rank == 0 else torch.zeros_like(bias)
        if layer not in self._outputs:
            return self._whole.read(self._whole_name(name), *shape)
        whole = self._whole.read(self._whole_name(name), self._outputs[layer][1], *shape[1:])
        return _rows(whole, self._lines(module))

    def linear(self, prefix: str, outputs: int, inputs: int) -> torch.Tensor | GroupQuantized:
        """Read this rank's part of a linear layer, as `Weights.linear`; of a cut dimension, the size is the rank's."""
        module, _, layer = prefix.rpartition(".")
        if layer in self._outputs:
            lines = self._lines(prefix)
            weight = self._whole.linear(self._whole_name(prefix), self._outputs[layer][1], inputs)
            if not isinstance(weight, GroupQuantized):
                return _rows(weight, lines)
            codes, scales, offsets = (_rows(x, lines) for x in (weight.codes, weight.scales, weight.offsets))
            return replace(weight, codes=codes, scales=scales, offsets=offsets)
        part, size = self._inputs[layer]
        if layer == "down_proj":
            weight, self._down = self._read_down(module), None
            if isinstance(weight, GroupQuantized):
                weight = replace(weight, order=None)  # `_lines` are in that order
        else:
            weight = self._whole.linear(self._whole_name(prefix), outputs, size)
        if not isinstance(weight, GroupQuantized):
            return _cut(weight, 1, part)
        return _columns(weight, part) if weight.order is None else _filled(weight, weight.order, part)

    def tied_head(self, embedding: torch.Tensor) -> torch.Tensor:
        """Return the rows of the embedding [vocab_size, hidden_size] that are this rank's of lm_head."""
        return _cut(embedding, 0, self._shard.vocab)

    def _lines(self, prefix: str) -> _Lines:
        """Which outputs of the layer `prefix` are this rank's."""
        module, _, layer = prefix.rpartition(".")
        part = self._outputs[layer][0]
        if layer not in ("gate_proj", "up_proj") or self._config.quantization is None:
            return part
        down = self._read_down(module)
        order = down.order if isinstance(down, GroupQuantized) else None
        return part if order is None else order[part.start : part.stop]

    def _read_down(self, mlp: str) -> torch.Tensor | GroupQuantized:
        """The whole down_proj. It is kept until its turn comes: gate_proj and up_proj need its order."""
        name = self._whole_name(f"{mlp}.down_proj")
        if self._down is None or self._down[0] != name:
            size = self._config.intermediate_size
            self._down = name, self._whole.linear(name, self._config.hidden_size, size)
        return self._down[1]

    def _whole_name(self, name: str) -> str:
        if not name.startswith(LAYERS):
            return name
        index, _, rest = name.removeprefix(LAYERS).partition(".")
        return layer_prefix(int(index) + self._shard.layers.start) + rest


def _scaled(part: range, size: int) -> range:
    return range(part.start * size, part.stop * size)


def _cut(weight: torch.Tensor, dimension: int, part: range) -> torch.Tensor:
    """A copy: a view would keep the whole in memory."""
    return weight.narrow(dimension, part.start, len(part)).clone(memory_format=torch.contiguous_format)


def _rows(weight: torch.Tensor, lines: _Lines) -> torch.Tensor:
    return _cut(weight, 0, lines) if isinstance(lines, range) else weight[lines]


def _columns(weight: GroupQuantized, part: range) -> GroupQuantized:
    """Where a cut goes through a group, all groups become shorter, with the same scales."""
    group = math.gcd(weight.group_size, part.start, part.stop)
    groups = range(part.start // group, part.stop // group)
    times = weight.group_size // group
    scales, offsets = (_cut(x.repeat_interleave(times, 1), 1, groups) for x in (weight.scales, weight.offsets))
    return replace(weight, codes=_cut(weight.codes, 1, part), scales=scales, offsets=offsets)


def _filled(weight: GroupQuantized, order: torch.Tensor, part: range) -> GroupQuantized:
    """The inputs in `part`, group by group, each group filled up to a multiple of a shorter one's length."""
    group = math.gcd(weight.group_size, UNIT)
    columns = ((order >= part.start) & (order < part.stop)).nonzero().squeeze(1)
    of = columns // weight.group_size
    members = torch.bincount(of, minlength=weight.scales.shape[1])
    times = -(-members // group)  # of the shorter group
    starts, lengths = torch.cumsum(members, 0) - members, times * group
    to = torch.arange(len(columns)) + (torch.cumsum(lengths, 0) - lengths - starts)[of]
    codes = weight.codes.new_zeros(len(weight.codes), int(lengths.sum()))
    codes[:, to] = weight.codes[:, columns]
    inputs = torch.full((codes.shape[1],), NO_INPUT)
    inputs[to] = order[columns] - part.start
    scales, offsets = (x.repeat_interleave(times, 1) for x in (weight.scales, weight.offsets))
    return replace(weight, codes=codes, scales=scales, offsets=offsets, order=inputs)
