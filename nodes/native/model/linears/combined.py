"""Linear layers that are made of other linear layers."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from .....quant.checkpoint.quantized import NO_INPUT
from .dense import Linear


@dataclass(frozen=True)
class ByRows:
    """A linear layer that computes up to `limit` rows by `few` and more by `many`; both have the same weight."""

    few: Linear
    limit: int
    many: Linear

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """[n, in] -> [n, out]"""
        return self.few(x) if len(x) <= self.limit else self.many(x)


class Reordered:
    """A layer whose weight has its columns in another order (GPTQ's act-order)."""

    def __init__(self, linear: Linear, order: torch.Tensor) -> None:
        """`order` is that of `GroupQuantized`."""
        used = order != NO_INPUT
        self._linear, self._has_gaps = linear, not used.all()
        self._order = order.where(used, used.sum())  # behind the last input is a zero

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """[n, in] -> [n, out]"""
        if self._has_gaps:
            x = F.pad(x, (0, 1))
        return self._linear(x.index_select(-1, self._order))


@dataclass(frozen=True)
class SideBySide:
    """Linear layers over the same input whose weights cannot be joined to one."""

    parts: Sequence[Linear]

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """[n, in] -> [n, out], the outputs of all parts"""
        return torch.cat([part(x) for part in self.parts], -1)
