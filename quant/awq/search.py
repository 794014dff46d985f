"""The two searches of AWQ: a scale per input channel, then how far to clip each group.

Both minimise the squared error of a linear layer's output over the calibration inputs X. With H = X^T X,

    ||X (W' - W)^T||^2 = trace((W' - W) H (W' - W)^T)

so that a candidate costs a product with H [in, in] instead of one with all of X [tokens, in], and X need not be kept.
The paper's own code measures the output of a whole attention or MLP block instead, by running it for every candidate.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ..numerics import native_dtype
from .rounding import Grid, fit, grouped, make_grid

# Exponents of the activations in a scale: a coarse look, then both sides of the best, twice.
_COARSE, _FINE = (0.0, 0.2, 0.4, 0.6, 0.8), (0.1, 0.05)
_OUTPUTS = 2048
_SHRINKS, _SMALLEST_SHRINK = 10, 0.5


class InputStatistics:
    """What the searches need to know of the inputs of one linear layer."""

    def __init__(self, inputs: int, device: torch.device) -> None:
        self.hessian = torch.zeros(inputs, inputs, device=device)  # float32 [in, in], sum of x x^T
        self._magnitude = torch.zeros(inputs, device=device)
        self._count, self._dtype = 0, native_dtype(device)

    def add(self, x: torch.Tensor) -> None:
        """Take in inputs [..., in]."""
        rows = x.reshape(-1, x.shape[-1])
        factors = rows.to(self._dtype)
        self.hessian += factors.t() @ factors
        self._magnitude += rows.abs().sum(0)
        self._count += len(rows)

    @property
    def magnitude(self) -> torch.Tensor:
        """Mean absolute value per channel, float32 [in]."""
        return self._magnitude / max(self._count, 1)

    def scaled(self, scales: torch.Tensor) -> torch.Tensor:
        """The hessian of inputs that are divided by `scales` [in]."""
        return self.hessian / torch.outer(scales, scales)


@dataclass(frozen=True)
class Scale:
    """Weights are multiplied by `values` [in], and inputs divided; `ratio` is the exponent that made it."""

    values: torch.Tensor
    ratio: float


def squared_error(difference: torch.Tensor, hessian: torch.Tensor) -> float:
    """trace(D H D^T) of `difference` D [out, in].

    The product is in the device's fastest dtype: its rounding errors, of 1 in 256 at most, cancel in the sum.
    """
    dtype = native_dtype(difference.device)
    product = difference.to(dtype) @ hessian.to(dtype)
    return float(torch.dot(product.float().view(-1), difference.reshape(-1)))


def sample(rows: torch.Tensor, most: int) -> torch.Tensor:
    """At most `most` of the rows, evenly spread."""
    return rows[:: -(-len(rows) // most)].contiguous()


def search_scale(weights: Sequence[torch.Tensor], statistics: InputStatistics, group_size: int) -> Scale:
    """The best scale for linear layers [out, in] that read the same inputs.

    Candidates are x^r / w^(1-r), as in the paper's code: large where activations are large, and where weights are
    small beside the others of their group. The error is smooth in r, so that a few exponents tell where the best is;
    and all outputs share the scale, so that some of them tell what it does.
    """
    whole = weights[0] if len(weights) == 1 else torch.cat(list(weights))
    importance, weight = _importance(whole, group_size), sample(whole, _OUTPUTS)
    best, least = Scale(torch.ones_like(importance), 0.0), torch.inf

    def consider(ratio: float) -> None:
        nonlocal best, least
        values = _scale_values(statistics.magnitude, importance, ratio)
        scaled = grouped(weight * values, group_size)
        rounded = make_grid(*fit(scaled)).round(scaled).view(weight.shape)
        error = squared_error(rounded.div_(values).sub_(weight), statistics.hessian)
        if error < least:
            best, least = Scale(values, ratio), error

    for ratio in _COARSE:
        consider(ratio)
    for step in _FINE:
        centre = best.ratio
        for ratio in (centre - step, centre + step):
            if 0 <= ratio <= 1:
                consider(round(ratio, 3))
    return best


def _importance(weight: torch.Tensor, group_size: int) -> torch.Tensor:
    """Mean size of each input's weights, relative to the largest of their groups: [in]."""
    groups = grouped(weight, group_size).abs()
    return groups.div_(groups.amax(-1, keepdim=True).clamp_(min=1e-6)).view(weight.shape).mean(0)


def _scale_values(magnitude: torch.Tensor, importance: torch.Tensor, ratio: float) -> torch.Tensor:
    values = magnitude.pow(ratio) / importance.pow(1 - ratio).clamp_(min=1e-4)
    values.clamp_(min=1e-4)
    return values / (values.max() * values.min()).sqrt()


def search_clip(weight: torch.Tensor, hessian: torch.Tensor, group_size: int) -> Grid:
    """The grid of a weight [out, in] whose groups are clipped as far as makes the output's error least.

    As in the paper's code a candidate is a share of the group's largest magnitude, and what lies beyond it on either
    side is clipped. That code minimises the error that each group makes alone. Here the groups are taken in order, and
    each also answers for what those before it have left: their errors add up in one output, and clipping biases them.
    """
    groups = grouped(weight, group_size)
    difference = torch.zeros_like(weight)  # of the groups that are decided
    chosen = []
    for group in range(groups.shape[1]):
        start, stop = group * group_size, (group + 1) * group_size
        before = difference[:, :start] @ hessian[:start, start:stop]
        clip = _clip_group(groups[:, group : group + 1], hessian[start:stop, start:stop], before)
        difference[:, start:stop] = clip.difference
        chosen.append(clip)
    return make_grid(torch.cat([clip.low for clip in chosen], 1), torch.cat([clip.high for clip in chosen], 1))


@dataclass
class _Clip:
    """The best found so far, for every output."""

    low: torch.Tensor  # [out, 1]
    high: torch.Tensor  # [out, 1]
    difference: torch.Tensor  # [out, group_size]


def _clip_group(group: torch.Tensor, block: torch.Tensor, before: torch.Tensor) -> _Clip:
    """The best span of one `group` [out, 1, group_size]; `before` [out, group_size] is D H of the groups before."""
    low, high = fit(group)
    largest = torch.maximum(-low, high)
    least = torch.full_like(low, torch.inf)
    best = _Clip(low, high, torch.zeros_like(before))
    for shrink in torch.linspace(1, _SMALLEST_SHRINK, _SHRINKS + 1).tolist():
        span = torch.maximum(low, -shrink * largest), torch.minimum(high, shrink * largest)
        difference = make_grid(*span).round(group).sub_(group).squeeze(1)
        error = torch.addmm(before, difference, block, beta=2.0).mul_(difference).sum(-1, keepdim=True)
        better = error < least
        least = torch.where(better, error, least)
        best.low, best.high = torch.where(better, span[0], best.low), torch.where(better, span[1], best.high)
        best.difference = torch.where(better, difference, best.difference)
    return best
