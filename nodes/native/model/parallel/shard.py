"""What each rank computes of a model: pure arithmetic on its shape.

Tensor parallelism after Megatron (arXiv 1909.08053): a rank has some query heads with the key-value heads that they
read, some neurons of the MLP and some rows of lm_head. Shares differ by one unit where they do not divide. With more
ranks than key-value heads, several ranks hold the same one. Pipeline parallelism: a stage has layers that follow one
another; the last has lm_head as well, and fewer layers for it.
"""

import math
from dataclasses import dataclass, replace
from itertools import pairwise

from .....core.errors import EngineError
from .....quant.checkpoint.config import ModelConfig

UNIT = 32  # inputs of a linear layer that are dealt out together: what kernels and groups of weights are multiples of


@dataclass(frozen=True, kw_only=True)
class Shard:
    """The part of a model that one rank computes. Ranges are of the whole model's heads, neurons, tokens and layers."""

    tensor_rank: int
    heads: range
    kv_heads: range
    inner: range
    vocab: range
    layers: range
    is_first: bool  # embeds tokens
    is_last: bool  # has norm and lm_head

    def config(self, whole: ModelConfig) -> ModelConfig:
        """The shape of the part, as if it were a model; its vocabulary is whole."""
        return replace(
            whole,
            num_heads=len(self.heads),
            num_kv_heads=len(self.kv_heads),
            intermediate_size=len(self.inner),
            num_layers=len(self.layers),
            windows=whole.windows[self.layers.start : self.layers.stop],
        )

    @property
    def name(self) -> str:
        """A name that tells this part from the others of the same model."""
        ranges = (self.heads, self.inner, self.layers)
        return " ".join(f"{part.start}-{part.stop}" for part in ranges)


def make_shard(config: ModelConfig, tensor_parallel: int, pipeline_parallel: int, rank: int) -> Shard:
    """Make the part of `rank` of tensor_parallel x pipeline_parallel; ranks of one stage follow one another.

    Raises EngineError where the model cannot be cut into so many parts; it says into how many it can.
    """
    stage, tensor_rank = divmod(rank, tensor_parallel)
    heads, kv_heads = _heads(config, tensor_parallel)[tensor_rank]
    units = config.intermediate_size / UNIT
    if units < tensor_parallel:
        raise _too_many("tensor_parallel", tensor_parallel, f"{int(units)} times {UNIT} neurons", int(units))
    return Shard(
        tensor_rank=tensor_rank,
        heads=heads,
        kv_heads=kv_heads,
        inner=_split(config.intermediate_size, tensor_parallel, UNIT)[tensor_rank],
        vocab=_split(config.vocab_size, tensor_parallel, 1)[tensor_rank],
        layers=_stages(config, pipeline_parallel)[stage],
        is_first=stage == 0,
        is_last=stage == pipeline_parallel - 1,
    )


def _heads(config: ModelConfig, ranks: int) -> list[tuple[range, range]]:
    """Query heads and key-value heads of each rank: whole groups, or parts of one group."""
    group = config.num_heads // config.num_kv_heads
    if ranks <= config.num_kv_heads:
        pieces = _split(config.num_kv_heads, ranks, 1)
        return [(range(kv.start * group, kv.stop * group), kv) for kv in pieces]
    if ranks > config.num_heads:
        raise _too_many("tensor_parallel", ranks, f"{config.num_heads} attention heads", config.num_heads)
    found = []
    for kv, sharing in enumerate(_split(ranks, config.num_kv_heads, 1)):
        first = kv * group
        found += [
            (range(first + part.start, first + part.stop), range(kv, kv + 1)) for part in _split(group, len(sharing), 1)
        ]
    return found


def _stages(config: ModelConfig, count: int) -> list[range]:
    """Layers of each stage, cut so that the largest stage costs least; lm_head costs as much as its weights."""
    if count > config.num_layers:
        raise _too_many("pipeline_parallel", count, f"{config.num_layers} layers", config.num_layers)
    if count == 1:
        return [range(config.num_layers)]
    heads = 2 * (config.num_heads + config.num_kv_heads) * config.head_dim
    layer = config.hidden_size * (heads + 3 * config.intermediate_size)
    head = config.vocab_size * config.hidden_size / layer  # in layers

    def largest(last: int) -> float:
        return max(last + head, math.ceil((config.num_layers - last) / (count - 1)))

    last = min(range(1, config.num_layers - count + 2), key=lambda last: (largest(last), -last))
    first = config.num_layers - last
    return [*_split(first, count - 1, 1), range(first, config.num_layers)]


def _split(size: int, count: int, unit: int) -> list[range]:
    """`size` in `count` ranges whose lengths, but for the last, are multiples of `unit` and differ by one at most."""
    units = -(-size // unit)
    cuts = [min(unit * ((units * i + count - 1) // count), size) for i in range(count + 1)]
    return [range(start, stop) for start, stop in pairwise(cuts)]


def _too_many(name: str, given: int, what: str, most: int) -> EngineError:
    return EngineError(f"{name} = {given}: the model has {what}; expected at most {most}")
