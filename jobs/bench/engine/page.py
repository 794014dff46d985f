"""What `slurminfer bench engine` found, on one page of 1400 x 800 pixels."""

from pathlib import Path
from typing import TYPE_CHECKING

from ... import plots
from .results import EngineBench

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_WIDTH, _HEIGHT = 1400, 800  # pixels
_MOST_MS = 0.99  # of latencies are shown


def draw(found: EngineBench, path: Path) -> None:
    """Write the page to `path`, a .png."""
    seen = found.measured
    with plots.page(path, _WIDTH, _HEIGHT) as figure:
        figure.text(0.06, 0.94, found.model, size=22, weight="bold")
        figure.text(0.06, 0.90, f"{found.described}; {found.date[:10]}", size=12)
        decode, prefill = figure.add_axes((0.06, 0.50, 0.40, 0.31)), figure.add_axes((0.56, 0.50, 0.40, 0.31))
        ttft, itl = figure.add_axes((0.06, 0.09, 0.40, 0.27)), figure.add_axes((0.56, 0.09, 0.40, 0.27))
        _decode(decode, found)
        _prefill(prefill, found)
        _latency(ttft, "Time to first token", seen.load.ttft_s)
        _latency(itl, "Time between tokens", seen.load.itl_s)


def _decode(axes: "Axes", found: EngineBench) -> None:
    for context in dict.fromkeys(point.context for point in found.measured.decode):
        points = [point for point in found.measured.decode if point.context == context]
        batches, speeds = [str(point.batch) for point in points], [point.tokens_per_s for point in points]
        axes.plot(batches, speeds, marker="o", lw=2.2, label=f"context {context:,}")
        for point in points:
            share = f" ({found.roofline(point):.0%})" if found.measured.weight_bytes else ""
            text = f"{point.tokens_per_s:,.0f}{share}"
            axes.annotate(text, (str(point.batch), point.tokens_per_s), (0, 8), textcoords="offset points", ha="center")
    axes.set(title="Decode, tokens/s by batch (share of memory bandwidth)", yscale="log")
    axes.margins(x=0.15, y=0.25)
    axes.yaxis.set_major_formatter("{x:,.0f}")
    axes.tick_params(axis="y", which="minor", left=False, labelleft=False)
    axes.legend(frameon=False, loc="upper left")


def _prefill(axes: "Axes", found: EngineBench) -> None:
    lengths = [f"{one.tokens:,}" for one in found.measured.prefill]
    speeds = [one.tokens_per_s for one in found.measured.prefill]
    axes.bar_label(axes.bar(lengths, speeds, width=0.5), fmt="{:,.0f}", padding=3)
    axes.margins(y=0.15)
    axes.set(title="Prefill, tokens/s by length")


def _latency(axes: "Axes", title: str, seconds: tuple[float, ...]) -> None:
    """The share of all that took no longer."""
    values = sorted(1000 * value for value in seconds)
    axes.step(values, [(i + 1) / len(values) for i in range(len(values))], lw=2.2, where="post")
    axes.set(
        title=f"{title}, ms, under load", ylim=(0, 1.02), xlim=(0, values[int(_MOST_MS * (len(values) - 1))] * 1.05)
    )
