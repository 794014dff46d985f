"""Layers made of layers."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from .dense import Linear


@dataclass(frozen=True)
class ByRows:
    """`few` for up to `limit` rows, `many` for more; both have the same weight."""

    few: Linear
    limit: int
    many: Linear

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """[n, in] -> [n, out]"""
        return self.few(x) if len(x) <= self.limit else self.many(x)


@dataclass(frozen=True)
class Reordered:
    """A layer whose weight has its columns in another order (GPTQ's act-order)."""

    linear: Linear
    order: torch.Tensor  # int64 [in]: column j multiplies input order[j]

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """[n, in] -> [n, out]"""
        return self.linear(x.index_select(-1, self.order))


@dataclass(frozen=True)
class SideBySide:
    """Layers over the same input whose weights cannot be one."""

    parts: Sequence[Linear]

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """[n, in] -> [n, out], the outputs of all parts"""
        return torch.cat([part(x) for part in self.parts], -1)
