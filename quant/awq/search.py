"""The two searches of AWQ: a scale per input channel, then how far to clip each group.

Both minimise the squared error of a linear layer's output over the calibration inputs X. With H = X^T X,

    ||X (W' - W)^T||^2 = trace((W' - W) H (W' - W)^T)

so that a candidate costs a product with H [in, in] instead of one with all of X [tokens, in], and X need not be kept.
The paper's own code measures the output of a whole attention or MLP block instead, by running it for every candidate.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from .rounding import Grid, fit, grouped, make_grid

_RATIOS = 20
_SHRINKS, _SMALLEST_SHRINK = 20, 0.5


class InputStatistics:
    """What the searches need to know of the inputs of one linear layer."""

    def __init__(self, inputs: int, device: torch.device) -> None:
        self.hessian = torch.zeros(inputs, inputs, device=device)  # float32 [in, in], sum of x x^T
        self._magnitude = torch.zeros(inputs, device=device)
        self._count = 0

    def add(self, x: torch.Tensor) -> None:
        """Take in inputs [..., in]."""
        rows = x.reshape(-1, x.shape[-1]).float()
        self.hessian.addmm_(rows.t(), rows)
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
class BestScale:
    """The scale [in] that weights are multiplied by, and inputs divided; `ratio` is the exponent that made it."""

    scales: torch.Tensor
    ratio: float


def squared_error(difference: torch.Tensor, hessian: torch.Tensor) -> torch.Tensor:
    """trace(D H D^T) of `difference` D [out, in]: a number on its device."""
    return torch.einsum("oi,oi->", difference @ hessian, difference)


def search_scale(weights: Sequence[torch.Tensor], statistics: InputStatistics, group_size: int) -> BestScale:
    """The best scale for linear layers [out, in] that read the same inputs."""
    weight = weights[0] if len(weights) == 1 else torch.cat(list(weights))
    best, least = BestScale(torch.ones_like(statistics.magnitude), 0.0), torch.inf
    for candidate in _candidates(weight, statistics.magnitude, group_size):
        scaled = grouped(weight * candidate.scales, group_size)
        rounded = make_grid(*fit(scaled)).round(scaled).view(weight.shape)
        error = float(squared_error(rounded.div_(candidate.scales).sub_(weight), statistics.hessian))
        if error < least:
            best, least = candidate, error
    return best


def search_clip(weight: torch.Tensor, hessian: torch.Tensor, group_size: int) -> Grid:
    """The grid of a weight [out, in] whose groups are clipped as far as makes the output's error least.

    The paper's code minimises the error that each group makes alone. Here the groups are taken in order, and each
    also answers for what those before it have left: their errors add up in one output, and clipping biases them.
    """
    groups = grouped(weight, group_size)
    low, high = fit(groups)
    difference = torch.zeros_like(weight)  # of the groups that are decided
    for group in range(groups.shape[1]):
        start, stop = group * group_size, (group + 1) * group_size
        before = difference[:, :start] @ hessian[:start, start:stop]
        choice = _clip_group(
            groups[:, group : group + 1],
            (low[:, group : group + 1], high[:, group : group + 1]),
            hessian[start:stop, start:stop],
            before,
        )
        difference[:, start:stop] = choice.difference
        low[:, group] *= choice.shrink
        high[:, group] *= choice.shrink
    return make_grid(low, high)


@dataclass
class _Clip:
    """The best found so far, for every output."""

    shrink: torch.Tensor  # [out]
    difference: torch.Tensor  # [out, group_size]


def _clip_group(
    group: torch.Tensor, span: tuple[torch.Tensor, torch.Tensor], block: torch.Tensor, before: torch.Tensor
) -> _Clip:
    """The best shrink of one `group` [out, 1, group_size]; `before` [out, group_size] is D H of the groups before."""
    low, high = span
    least = torch.full_like(low[:, 0], torch.inf)
    best = _Clip(torch.ones_like(least), torch.zeros_like(before))
    for shrink in torch.linspace(1, _SMALLEST_SHRINK, _SHRINKS + 1).tolist():
        difference = make_grid(low * shrink, high * shrink).round(group).sub_(group).squeeze(1)
        error = torch.addmm(before, difference, block, beta=2.0).mul_(difference).sum(-1)
        better = error < least
        least = torch.where(better, error, least)
        best.shrink = torch.where(better, shrink, best.shrink)
        best.difference = torch.where(better.unsqueeze(1), difference, best.difference)
    return best


def _candidates(weight: torch.Tensor, magnitude: torch.Tensor, group_size: int) -> Iterator[BestScale]:
    """x^r / w^(1-r): large where activations are large and weights small beside the others of their group."""
    groups = grouped(weight, group_size).abs()
    importance = (groups / groups.amax(-1, keepdim=True).clamp_(min=1e-6)).view(weight.shape).mean(0)
    for step in range(_RATIOS):
        ratio = step / _RATIOS
        scales = magnitude.pow(ratio) / importance.pow(1 - ratio).clamp_(min=1e-4)
        scales = scales.clamp_(min=1e-4)
        yield BestScale(scales / (scales.max() * scales.min()).sqrt(), ratio)
