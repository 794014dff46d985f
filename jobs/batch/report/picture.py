"""A picture of throughput over time: an SVG file, and a line of blocks for a terminal."""

import itertools
import math
import time
from collections.abc import Callable, Sequence
from html import escape

from .history import Span
from .words import duration, figure

_WIDTH, _HEIGHT = 880, 320
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 20, 66, 40
_BLOCKS = "▁▂▃▄▅▆▇█"
BUCKETS = 160  # at most, over the width of the picture
_STEPS_S = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14_400, 21_600, 43_200, 86_400, 172_800)
# Drawn on its own background, so that it reads the same on a dark page; colours pass WCAG AA on white.
_STYLE = """
text{font:13px system-ui,"Segoe UI",Roboto,"Liberation Sans",Arial,sans-serif;fill:#55606a}
.title{font-size:16px;font-weight:650;fill:#1a2023}.grid{stroke:#e4e7e2;stroke-width:1}.axis{stroke:#c3c9c4}
.area{fill:#0b6b63;opacity:.12}.line{fill:none;stroke:#0b6b63;stroke-width:2;stroke-linejoin:round}
.fail{fill:#b3261e;opacity:.75}.start{stroke:#8a5300;stroke-width:1.2;stroke-dasharray:3 3}.mark{fill:#8a5300}
"""


def sparkline(values: Sequence[float], width: int = 60) -> str:
    """Blocks whose heights are the values, zero a gap; `width` at most, of which each is the mean of its values."""
    if not values:
        return ""
    count = min(width, len(values))
    edges = [round(index * len(values) / count) for index in range(count + 1)]
    means = [sum(values[low:high]) / (high - low) for low, high in itertools.pairwise(edges)]
    most = max(means)
    if most <= 0:
        return " " * count
    return "".join(" " if mean <= 0 else _BLOCKS[min(7, int(8 * mean / most))] for mean in means)


def svg(title: str, spans: Sequence[Span], clock: Callable[[float], str] | None = None) -> str:
    """Tokens/s that were generated over time, or rows/s where none were; rows that failed, and starts of drivers.

    Args:
        title: above it.
        spans: of all drivers together, as `history.together` gives them, one at least.
        clock: writes a Unix time; by default as the local time, with the day where there are several.
    """
    unit, name = _unit(spans)
    values = [unit(span) / span.seconds for span in spans]
    most = _round_up(max(values))
    begin, end = spans[0].since, spans[-1].until
    plot = _Plot(begin, end, most)
    written = clock or _local_clock(begin, end)
    mean = sum(unit(span) for span in spans) / (end - begin)
    said = f"{name}, {figure(mean)} on average over {duration(end - begin)}"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        f'aria-label="{escape(title)}: {name} over time, {escape(figure(mean))} on average">',
        f"<style>{_STYLE}</style>",
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" rx="10" fill="#fff"/>',
        f'<text class="title" x="{_LEFT}" y="28">{escape(_cut(title))}</text>',
        f'<text x="{_LEFT}" y="48">{escape(said)}{_legend(spans)}</text>',
        *_rows_of_grid(plot),
        *_times(plot, written),
        *_failures(spans, plot),
        *_curve(spans, values, plot),
        *_starts(spans, plot),
        "</svg>\n",
    ]
    return "\n".join(parts)


class _Plot:
    """From times and rates to pixels."""

    def __init__(self, begin: float, end: float, most: float) -> None:
        self.begin, self.end, self.most = begin, end, most

    def x(self, at: float) -> float:
        """Of a time."""
        return round(_LEFT + (at - self.begin) / (self.end - self.begin) * (_WIDTH - _LEFT - _RIGHT), 1)

    def y(self, value: float) -> float:
        """Of a rate."""
        return round(_HEIGHT - _BOTTOM - value / self.most * (_HEIGHT - _TOP - _BOTTOM), 1)


def _unit(spans: Sequence[Span]) -> tuple[Callable[[Span], float], str]:
    if any(span.completion_tokens for span in spans):
        return lambda span: span.completion_tokens, "tokens generated per second"
    return lambda span: span.rows, "rows per second"


def _legend(spans: Sequence[Span]) -> str:
    """What else is in the picture, in words."""
    failed = "; red: share of rows that failed" if any(span.failed > 1e-9 for span in spans) else ""
    began = "; dashed: a driver began" if any(span.is_first for span in spans[1:]) else ""
    return failed + began


def _rows_of_grid(plot: _Plot) -> list[str]:
    found = []
    for index in range(5):
        value = plot.most * index / 4
        y = plot.y(value)
        kind = "grid" if index else "axis"
        found.append(f'<line class="{kind}" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y}" y2="{y}"/>')
        words = "0" if not index else f"{value:,.0f}" if plot.most >= 20 else f"{value:,.3g}"
        found.append(f'<text x="{_LEFT - 8}" y="{y + 4}" text-anchor="end">{words}</text>')
    return found


def _times(plot: _Plot, written: Callable[[float], str]) -> list[str]:
    step = next((step for step in _STEPS_S if (plot.end - plot.begin) / step <= 8), None)
    step = step or math.ceil((plot.end - plot.begin) / 8 / 86_400) * 86_400
    offset = time.localtime(plot.begin).tm_gmtoff  # so that marks are at whole hours of the local time
    first = math.ceil((plot.begin + offset) / step) * step - offset
    marks = [first + index * step for index in range(int((plot.end - first) / step) + 1)] if first <= plot.end else []
    found = []
    for at in marks:
        x = plot.x(at)
        anchor = "start" if x < _LEFT + 20 else "end" if x > _WIDTH - _RIGHT - 20 else "middle"
        found.append(f'<text x="{x}" y="{_HEIGHT - _BOTTOM + 22}" text-anchor="{anchor}">{escape(written(at))}</text>')
    return found


def _curve(spans: Sequence[Span], values: Sequence[float], plot: _Plot) -> list[str]:
    """Steps: what is known of a span is its mean."""
    base = plot.y(0)
    path = [f"M{plot.x(spans[0].since)} {plot.y(values[0])}"]
    for span, value in zip(spans, values, strict=True):
        path.append(f"V{plot.y(value)}H{plot.x(span.until)}")
    drawn = "".join(path)
    return [
        f'<path class="area" d="{drawn}V{base}H{plot.x(spans[0].since)}Z"/>',
        f'<path class="line" d="{drawn}"/>',
    ]


def _failures(spans: Sequence[Span], plot: _Plot) -> list[str]:
    """Bars from below, as high as the share of rows that have failed."""
    base, height = plot.y(0), _HEIGHT - _TOP - _BOTTOM
    found = []
    for span in spans:
        if span.failed > 1e-9:
            share = min(1.0, span.failed / max(span.rows, span.failed))
            left, width = plot.x(span.since), max(1.0, plot.x(span.until) - plot.x(span.since))
            high = max(2.0, share * height)
            said = f"{span.failed:,.0f} of {span.rows:,.0f} rows failed"
            found.append(
                f'<rect class="fail" x="{left}" y="{base - high:.1f}" width="{width:.1f}" height="{high:.1f}">'
                f"<title>{said}</title></rect>"
            )
    return found


def _starts(spans: Sequence[Span], plot: _Plot) -> list[str]:
    """Where a driver has begun. One of the whole time needs no mark at its beginning."""
    found = []
    for span in spans[1:]:
        if span.is_first:
            x, base = plot.x(span.since), plot.y(0)
            found.append(f'<line class="start" x1="{x}" x2="{x}" y1="{_TOP - 6}" y2="{base}"/>')
            found.append(
                f'<path class="mark" d="M{x - 4.5} {_TOP - 12}h9l-4.5 7z"><title>a driver has begun</title></path>'
            )
    return found


def _round_up(value: float) -> float:
    """The next of 1, 1.2, 1.6, 2, 2.4, 3.2, 4, 6, 8 or 10 times a power of ten: a quarter of it is short to write."""
    if value <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in (1, 1.2, 1.6, 2, 2.4, 3.2, 4, 6, 8, 10) if step * power >= value * 0.9999)


def _local_clock(begin: float, end: float) -> Callable[[float], str]:
    format = "%H:%M:%S" if end - begin < 600 else "%H:%M" if end - begin < 86_400 else "%a %H:%M"
    if end - begin > 6 * 86_400:
        format = "%d %b"
    return lambda at: time.strftime(format, time.localtime(at))


def _cut(title: str) -> str:
    return title if len(title) <= 90 else f"{title[:89]}…"
