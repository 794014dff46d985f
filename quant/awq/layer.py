"""AWQ of one decoder layer: search scales, fold them away, clip, round.

    statistics of all inputs ──► a scale for each of INPUTS ──► into weights and whatever comes before
                                                            ──► a clipped grid for each linear ──► codes

Scaling changes nothing by itself: what a linear layer's inputs are divided by is divided out of the norm, or of the
rows of the linear layer, that they come from.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch

from ..checkpoint.awq import pack
from ..checkpoint.config import ModelConfig
from ..checkpoint.tensors import INPUT_NORM, K_PROJ, LINEARS, POST_NORM, Q_PROJ, UP_PROJ, V_PROJ
from .dense import INPUTS, Tensors
from .rounding import Grid, fit, grouped, make_grid
from .search import InputStatistics, sample, search_clip, search_scale, squared_error

# Where the scale of an input is divided out.
_SOURCES = {
    "attention": INPUT_NORM,
    "heads": V_PROJ,
    "mlp": POST_NORM,
    "product": UP_PROJ,
}
_REPORTED = 512  # outputs that errors are reported of
# Their outputs meet in a product, which a clipped weight changes in ways that its own error does not show.
_UNCLIPPED = (Q_PROJ, K_PROJ)


@dataclass(frozen=True)
class LinearReport:
    """How well a linear layer came out: squared errors of its output on the calibration inputs, relative to it."""

    error: float
    rtn_error: float  # of rounding to nearest, without scales and clipping
    ratio: float  # exponent of the activations in the scale
    clipped: float  # share of groups


@dataclass(frozen=True)
class QuantizedLayer:
    """A layer's tensors by their names below `layer_prefix`; linear weights are qweight, qzeros and scales."""

    tensors: dict[str, torch.Tensor]
    linears: dict[str, LinearReport]

    def report(self) -> dict[str, Any]:
        """The linear layers' reports as JSON values, by name."""
        return {name: asdict(linear) for name, linear in self.linears.items()}


def quantize_layer(
    config: ModelConfig,
    tensors: Tensors,
    statistics: Mapping[str, InputStatistics],
    group_size: int,
    dtype: torch.dtype,
) -> QuantizedLayer:
    """Quantize a layer's float32 `tensors`; `statistics` are by INPUTS, `dtype` is that of norms and biases."""
    scales = {name: search_scale(_weights(tensors, name), statistics[name], group_size) for name in _scaled(config)}
    folded = fold(tensors, {name: best.values for name, best in scales.items()})
    done = {name: value.to(dtype) for name, value in folded.items() if name.removesuffix(".weight") not in LINEARS}
    reports = {}
    for source, linears in INPUTS.items():
        before, best = statistics[source].hessian, scales.get(source)
        hessian = before if best is None else statistics[source].scaled(best.values)
        for name in linears:
            weight = folded[f"{name}.weight"]
            plain = make_grid(*fit(grouped(weight, group_size)))
            grid = plain if name in _UNCLIPPED else search_clip(weight, hessian, group_size)
            done |= _encode(name, weight, grid, group_size)
            reports[name] = LinearReport(
                error=_error(weight, hessian, grid, group_size),
                rtn_error=_error(tensors[f"{name}.weight"], before, None, group_size),
                ratio=best.ratio if best else 0.0,
                clipped=float((grid.scales != plain.scales).float().mean()),
            )
    return QuantizedLayer(done, reports)


def fold(tensors: Tensors, scales: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Fold scales into a layer, which computes the same as before.

    The weights that read an input of INPUTS are multiplied by its scale [inputs], and the norm or linear layer that
    the input comes from is divided by it.
    """
    folded = dict(tensors)
    for name, scale in scales.items():
        for linear in INPUTS[name]:
            folded[f"{linear}.weight"] = folded[f"{linear}.weight"] * scale
        for part in ("weight", "bias"):
            before = folded.get(f"{_SOURCES[name]}.{part}")
            if before is not None:
                folded[f"{_SOURCES[name]}.{part}"] = before / (scale if before.dim() == 1 else scale.unsqueeze(1))
    return folded


def _scaled(config: ModelConfig) -> list[str]:
    """With grouped key-value heads one row of v feeds several inputs of o: left out, as in the paper's code."""
    return [name for name in INPUTS if name != "heads" or config.num_heads == config.num_kv_heads]


def _weights(tensors: Tensors, source: str) -> list[torch.Tensor]:
    return [tensors[f"{name}.weight"] for name in INPUTS[source]]


def _encode(name: str, weight: torch.Tensor, grid: Grid, group_size: int) -> dict[str, torch.Tensor]:
    codes = grid.codes(grouped(weight, group_size)).view(weight.shape)
    return {
        f"{name}.qweight": pack(codes.t().contiguous()),
        f"{name}.qzeros": pack(grid.zeros.to(torch.uint8).t().contiguous()),
        f"{name}.scales": grid.scales.t().contiguous().half(),
    }


def _error(weight: torch.Tensor, hessian: torch.Tensor, grid: Grid | None, group_size: int) -> float:
    """Relative squared error of the outputs, as far as `sample` shows them; without a grid that of nearest rounding."""
    rows = sample(weight, _REPORTED)
    groups = grouped(rows, group_size)
    grid = (
        make_grid(*fit(groups)) if grid is None else Grid(sample(grid.scales, _REPORTED), sample(grid.zeros, _REPORTED))
    )
    whole = squared_error(rows, hessian)
    return squared_error(grid.round(groups).view(rows.shape) - rows, hessian) / whole if whole > 0 else 0.0
