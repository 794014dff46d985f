"""An evaluation on one page: `evaluation.png`, 1600 x 1000 pixels."""

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

from .. import plots
from ..plots import GREY, RULE
from .evaluation import (
    BATCHES,
    EXACT_ORIGINAL,
    EXACT_QUANTIZED,
    ORIGINAL,
    QUANTIZED,
    Evaluation,
    Figures,
    LinearError,
    Quantization,
)
from .table import percent

if TYPE_CHECKING:  # it takes a second to import, and only this page needs it
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_WIDTH, _HEIGHT = 1600, 1000  # pixels
_ORIGINAL_COLOUR, _QUANTIZED_COLOUR, _ROUNDED_COLOUR = "#8b97a5", "#1b62c4", "#d9731a"
_LEFT, _MIDDLE, _RIGHT = 0.04, 0.50, 0.97  # of the page's width
_NAMES = 0.125  # what rows' names take of it
_UPPER, _LOWER = (0.415, 0.28), (0.08, 0.195)  # panels: bottom and height, of the page's height
_LONGEST_NAME = 40  # characters of the model's name that have room in the title's usual size
_MB = 10**6


def draw(evaluation: Evaluation, path: Path) -> None:
    """Write the page to `path`, a .png."""
    with plots.page(path, _WIDTH, _HEIGHT) as figure:
        _title(figure, evaluation)
        _headline(figure, evaluation)
        _perplexities(figure, evaluation)
        if evaluation.quantization is not None:
            _layer_errors(figure, evaluation.quantization)
        _speeds(figure, evaluation)
        _capacities(figure, evaluation)


def _title(figure: "Figure", evaluation: Evaluation) -> None:
    bits = "" if evaluation.bits is None else f", {evaluation.bits} bits"
    group = "" if evaluation.group_size is None else f", groups of {evaluation.group_size}"
    size = min(24.0, 24 * _LONGEST_NAME / len(evaluation.model))
    figure.text(_LEFT, 0.945, evaluation.model, size=size, weight="bold")
    figure.text(_LEFT, 0.91, f"{evaluation.method.upper()}{bits}{group}", size=15, color=_QUANTIZED_COLOUR)
    measured = (
        f"perplexity on {Path(evaluation.text).name}: {evaluation.windows} windows of {evaluation.window} tokens",
        f"{evaluation.cpu}, {evaluation.cpus} CPU{'s' if evaluation.cpus > 1 else ''}, {evaluation.date[:10]}",
    )
    figure.text(_RIGHT, 0.945, "\n".join(measured), size=11, color=GREY, ha="right", va="center", linespacing=1.6)


def _headline(figure: "Figure", evaluation: Evaluation) -> None:
    original, quantized = evaluation.variant(ORIGINAL), evaluation.variant(QUANTIZED)
    old, new = (checkpoint.bytes / _MB for checkpoint in (evaluation.original, evaluation.quantized))
    exact = evaluation.variant(EXACT_ORIGINAL).perplexity
    speeds = (original.decode_tokens_per_s[1], quantized.decode_tokens_per_s[1])
    memory = (original.weights_bytes / _MB, quantized.weights_bytes / _MB)
    numbers = (
        (f"{evaluation.size_ratio:.2f} ×", "smaller on disk", f"{old:,.0f} → {new:,.0f} MB"),
        (percent(evaluation.perplexity_change), "perplexity", f"{exact:.2f} → {quantized.perplexity:.2f}"),
        (f"{evaluation.speedup(1):.2f} ×", "decode speed, batch 1", f"{speeds[0]:.1f} → {speeds[1]:.1f} tokens/s"),
        (f"{memory[1] / memory[0]:.2f} ×", "memory for weights", f"{memory[0]:,.0f} → {memory[1]:,.0f} MB"),
    )
    for place, (number, what, detail) in enumerate(numbers):
        left = _LEFT + place * (_RIGHT - _LEFT) / len(numbers)
        figure.text(left, 0.818, number, size=38, weight="bold")
        figure.text(left, 0.789, what, size=13)
        figure.text(left, 0.763, detail, size=12, color=GREY)


def _perplexities(figure: "Figure", evaluation: Evaluation) -> None:
    left, right = _LEFT + _NAMES, _MIDDLE - 0.08 if evaluation.quantization else _RIGHT
    axes = figure.add_axes((left, _UPPER[0], right - left, _UPPER[1]), title="Perplexity")
    reference = evaluation.variant(EXACT_ORIGINAL).perplexity
    axes.axvline(reference, color=RULE, zorder=0)
    for row, figures in enumerate(evaluation.variants):
        colour = _colour(figures)
        error = figures.perplexity_ratio_error * reference
        axes.errorbar(figures.perplexity, row, xerr=error, fmt="o", color=colour, ms=9, elinewidth=2)
        axes.annotate(
            f"{figures.perplexity:.2f}",
            (figures.perplexity + error, row),
            (9, 0),
            textcoords="offset points",
            va="center",
        )
    _name_rows(axes, [_describe(figures) for figures in evaluation.variants])
    axes.margins(x=0.18)
    axes.locator_params(axis="x", nbins=6)
    axes.set_xlabel("lower is better; bars: ± 1 standard error", loc="left")


def _layer_errors(figure: "Figure", quantization: Quantization) -> None:
    """Above, means over a layer's linears; below, where the method gains over rounding and where it does not."""
    layers, method = quantization.layers, quantization.method.upper()
    indices = [layer.index for layer in layers]
    axes = figure.add_axes((_MIDDLE, _UPPER[0] + 0.135, _RIGHT - 0.045 - _MIDDLE, _UPPER[1] - 0.135))
    axes.set_title("Output error of the linear layers")
    error, rounded = (
        [fmean(getattr(linear, name) for linear in layer.linears.values()) for layer in layers]
        for name in ("error", "rtn_error")
    )
    above = {True: 7, False: -7}  # points by which a line's label is off its end
    for label, means, others, colour in (
        ("rounding", rounded, error, _ROUNDED_COLOUR),
        (method, error, rounded, _QUANTIZED_COLOUR),
    ):
        axes.plot(indices, means, color=colour, lw=2.2, marker="o", ms=4)
        place = (8, above[means[-1] > others[-1]])
        axes.annotate(label, (indices[-1], means[-1]), place, textcoords="offset points", va="center", color=colour)
    axes.set(xlim=(indices[0] - 0.5, indices[-1] + 0.5), ylim=(0, None), ylabel="squared, relative")
    axes.tick_params(labelbottom=False, length=0)
    axes.grid(axis="y", color=RULE, lw=0.7)
    _gains(figure, quantization)


def _gains(figure: "Figure", quantization: Quantization) -> None:
    """A cell for each linear layer: its error as a share of the error that rounding makes."""
    from matplotlib.colors import LinearSegmentedColormap

    layers, names = quantization.layers, list(quantization.layers[0].linears)
    colours = LinearSegmentedColormap.from_list("gain", [_QUANTIZED_COLOUR, "white", _ROUNDED_COLOUR])
    shares = [[_share(layer.linears[name]) for layer in layers] for name in names]
    axes = figure.add_axes((_MIDDLE, _UPPER[0], _RIGHT - 0.045 - _MIDDLE, 0.12))
    edges = (layers[0].index - 0.5, layers[-1].index + 0.5, len(names) - 0.5, -0.5)
    image = axes.imshow(shares, cmap=colours, vmin=0, vmax=2, aspect="auto", extent=edges, interpolation="nearest")
    axes.set_yticks(range(len(names)), [name.rpartition(".")[2].removesuffix("_proj") for name in names], size=9)
    axes.set_xlabel(f"decoder layer; colours: {quantization.method.upper()}'s error as a share of rounding's")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    bar = figure.colorbar(image, cax=figure.add_axes((_RIGHT - 0.035, _UPPER[0], 0.008, 0.12)), ticks=[0, 1, 2])
    bar.ax.tick_params(labelsize=9, length=0)
    bar.outline.set_visible(False)


def _share(linear: LinearError) -> float:
    return linear.error / linear.rtn_error if linear.rtn_error else 1.0


def _speeds(figure: "Figure", evaluation: Evaluation) -> None:
    served = [each for each in evaluation.variants if each.name not in (EXACT_ORIGINAL, EXACT_QUANTIZED)]
    panels: list[tuple[str, list[float]]] = [
        (f"Decode, batch {batch}", [figures.decode_tokens_per_s[batch] for figures in served]) for batch in BATCHES
    ]
    panels.append(("Prefill", [figures.prefill_tokens_per_s for figures in served]))
    left, width = _LEFT + _NAMES, 0.14
    for place, (title, values) in enumerate(panels):
        axes = figure.add_axes((left + place * (width + 0.025), _LOWER[0], width, _LOWER[1]), title=title)
        _bars(axes, values, [_colour(figures) for figures in served])
        _name_rows(axes, ["" if place else _describe(figures) for figures in served])
        axes.set_xlabel("tokens/s")


def _capacities(figure: "Figure", evaluation: Evaluation) -> None:
    shown = [each for each in evaluation.variants if each.name.startswith(QUANTIZED) and each.name != EXACT_QUANTIZED]
    axes = figure.add_axes((0.74, _LOWER[0], _RIGHT - 0.74, _LOWER[1]), title="KV cache")
    _bars(axes, [figures.tokens_per_gib / 1000 for figures in shown], [_QUANTIZED_COLOUR] * len(shown))
    _name_rows(axes, [figures.kv_cache_dtype for figures in shown])
    axes.set_xlabel("thousand tokens that 1 GiB holds")


def _bars(axes: "Axes", values: Sequence[float], colours: Sequence[str]) -> None:
    """Horizontal ones, each with its number at the end."""
    axes.barh(range(len(values)), values, height=0.62, color=colours)
    for row, value in enumerate(values):
        text = f"{value:,.1f}" if value < 100 else f"{value:,.0f}"
        axes.annotate(text, (value, row), (6, 0), textcoords="offset points", va="center")
    axes.set_xlim(0, max(values) * 1.22)
    axes.locator_params(axis="x", nbins=4)
    axes.spines["bottom"].set_visible(False)
    axes.tick_params(axis="x", length=0)


def _name_rows(axes: "Axes", names: Sequence[str]) -> None:
    """Names at rows 0, 1, ... from the top down."""
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.spines["left"].set_visible(False)


def _describe(figures: Figures) -> str:
    if figures.name in (EXACT_ORIGINAL, EXACT_QUANTIZED):
        return f"{figures.checkpoint}, float32"
    if figures.name in (ORIGINAL, QUANTIZED):
        return f"{figures.checkpoint}, as served"
    return f"with {figures.kv_cache_dtype} KV cache"


def _colour(figures: Figures) -> str:
    return _ORIGINAL_COLOUR if figures.checkpoint == "original" else _QUANTIZED_COLOUR
