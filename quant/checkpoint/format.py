"""What a quantized format reads from, and what it is: the interfaces between `weights` and the formats' modules."""

from typing import Protocol

import torch

from .quantized import GroupQuantized


class StoredTensors(Protocol):
    """The tensors of a checkpoint as its files have them; `Weights` is one."""

    def __contains__(self, name: str) -> bool:
        """Whether the checkpoint has a tensor `name`."""

    def stored(self, name: str, *shape: int, dtype: torch.dtype | None = None) -> torch.Tensor:
        """A copy of tensor `name` on the CPU, in the file's dtype.

        Raises CorruptModelError unless it has `shape` and, if one is given, `dtype`.
        """

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of tensor `name`. Raises CorruptModelError."""


class CheckpointFormat(Protocol):
    """How one kind of quantized checkpoint stores linear layers."""

    def holds(self, weights: StoredTensors, prefix: str) -> bool:
        """Whether the layer `prefix`, such as "model.layers.0.mlp.up_proj", is stored quantized."""

    def read(self, weights: StoredTensors, prefix: str, outputs: int, inputs: int) -> GroupQuantized | torch.Tensor:
        """The layer's weight [outputs, inputs], dense (float) where its format has no integers.

        Raises CorruptModelError.
        """
