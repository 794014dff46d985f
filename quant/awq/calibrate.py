"""Running calibration samples through layers, one layer in memory at a time."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch

from ..checkpoint.config import ModelConfig
from ..checkpoint.tensors import EMBEDDING, layer_prefix, linear_shape, tensor_shapes
from ..checkpoint.weights import Weights
from ..rope import Rope
from .dense import INPUTS, DenseLayer, Tensors
from .search import InputStatistics
from .workspace import Hidden, WorkShare, put

# Tokens computed at once. More would not be faster, and a wide layer's activations would outweigh its weights.
_BATCH_TOKENS = 2048


@dataclass(frozen=True)
class Calibration:
    """A model and the samples that go through it."""

    model: Path
    config: ModelConfig
    tokens: torch.Tensor  # int64 [samples, length]
    device: torch.device

    @cached_property
    def weights(self) -> Weights:
        """The model's tensors, as float32; it opens every shard once."""
        return Weights(self.model, torch.float32)

    @property
    def batch(self) -> int:
        """Samples computed at once, always the same ones: sums are rounded alike however the work is divided."""
        return max(1, _BATCH_TOKENS // self.tokens.shape[1])

    def share(self, part: WorkShare) -> torch.Tensor:
        """The tokens of the samples that fall to `part`, int64 [its samples, length]: whole batches."""
        batches = part.range_of(math.ceil(len(self.tokens) / self.batch))
        return self.tokens[batches.start * self.batch : batches.stop * self.batch]

    def layer(self, index: int) -> Tensors:
        """The tensors of layer `index`, float32 on the device. Raises CorruptModelError."""
        shapes = tensor_shapes(self.config)
        return {
            name: self.weights.read(f"{layer_prefix(index)}{name}", *shape).to(self.device)
            for name, shape in shapes.items()
        }

    def embed(self, part: WorkShare, into: Hidden) -> None:
        """Write the inputs of the first layer, for the samples of `part`."""
        tokens = self.share(part)
        ids, places = torch.unique(tokens, return_inverse=True)
        table = self.weights.rows(f"{EMBEDDING}.weight", ids, self.config.vocab_size, self.config.hidden_size)
        with into.writing() as file:
            for batch in places.split(self.batch):
                put(file, table[batch])

    def forward(
        self,
        index: int,
        tensors: Tensors,
        source: Hidden,
        into: Hidden | None,
        statistics: dict[str, InputStatistics] | None = None,
    ) -> None:
        """Run what `source` holds through a layer: outputs `into` a file, inputs of its linears into `statistics`."""
        layer = DenseLayer(self.config, index, tensors)
        rotation = self._rotation()

        def outputs() -> Iterator[torch.Tensor]:
            for states in source.read(self.batch, self.tokens.shape[1], self.config.hidden_size):
                states = states.to(self.device)
                yield layer(states, rotation, lambda name, x: statistics[name].add(x) if statistics else None)

        if into is None:
            for _ in outputs():
                pass
            return
        with into.writing() as file:
            for states in outputs():
                put(file, states)

    def new_statistics(self) -> dict[str, InputStatistics]:
        """Empty statistics for each of INPUTS, to be filled by `forward`."""
        return {
            name: InputStatistics(linear_shape(self.config, linears[0])[1], self.device)
            for name, linears in INPUTS.items()
        }

    def _rotation(self) -> tuple[torch.Tensor, torch.Tensor]:
        length = self.tokens.shape[1]
        rope = Rope(self.config, length, torch.float32, self.device)
        return rope.at(torch.arange(length, device=self.device))


def memory_bytes(config: ModelConfig, length: int) -> int:
    """About how many bytes quantizing one layer takes at its peak: neither more layers nor more samples add to it.

    float32: the layer, once as it is and once folded; three more copies of the largest weights of one input while a
    scale is searched; sums of outer products; the activations of one batch.
    """
    shapes = tensor_shapes(config)
    layer = sum(math.prod(shape) for shape in shapes.values())
    widest = max(sum(math.prod(linear_shape(config, name)) for name in names) for names in INPUTS.values())
    sums = sum(2 * linear_shape(config, names[0])[1] ** 2 for names in INPUTS.values())
    activations = max(length, _BATCH_TOKENS) * (6 * config.hidden_size + 3 * config.intermediate_size)
    return 4 * (2 * layer + 3 * widest + sums + activations)
