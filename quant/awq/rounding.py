"""Rounding weights to 4-bit integers with a scale and a zero point per group of inputs.

Scales are numbers that float16 and bfloat16 both hold exactly: then every engine, whichever of the two it computes in,
has the same weights. That costs 0.2% of a scale at most, and the searches in this package see it.
"""

from dataclasses import dataclass

import torch

BITS = 4
GROUP_SIZES = (32, 64, 128)
_MAX = 2**BITS - 1
# Below this, float16 has fewer bits than bfloat16. Nothing is lost: fifteen such steps are 0.001 in all.
_SMALLEST = 2.0**-14


@dataclass(frozen=True)
class Grid:
    """Scales and zero points [out, groups], float32, that weights [out, groups, group_size] are rounded with."""

    scales: torch.Tensor
    zeros: torch.Tensor  # whole numbers from 0 to 15

    def round(self, weight: torch.Tensor) -> torch.Tensor:
        """The nearest representable values of `weight` [out, groups, group_size], float32."""
        return self._codes(weight).sub_(self.zeros.unsqueeze(-1)).mul_(self.scales.unsqueeze(-1))

    def codes(self, weight: torch.Tensor) -> torch.Tensor:
        """uint8 codes, with the same result: round(w) = (code - zero) * scale."""
        return self._codes(weight).to(torch.uint8)

    def _codes(self, weight: torch.Tensor) -> torch.Tensor:
        steps = weight.mul(self.scales.reciprocal().unsqueeze(-1)).round_()
        return steps.add_(self.zeros.unsqueeze(-1)).clamp_(0, _MAX)


def fit(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Smallest and largest of each group of `weight` [out, groups, group_size], 0 included: zero stays zero."""
    # torch.aminmax takes ten times as long as the two together.
    return weight.amin(-1).clamp_(max=0), weight.amax(-1).clamp_(min=0)


def make_grid(low: torch.Tensor, high: torch.Tensor) -> Grid:
    """The grid that spans from `low` to `high` [out, groups]."""
    scales = ((high - low) / _MAX).clamp_(min=_SMALLEST).bfloat16().float()
    return Grid(scales, (-low / scales).round_().clamp_(0, _MAX))


def grouped(weight: torch.Tensor, group_size: int) -> torch.Tensor:
    """A weight [out, in] as [out, groups, group_size]."""
    return weight.view(len(weight), -1, group_size)
