"""From some rows that were generated for real to how long all of them will take.

A sample is short: while it starts and while it ends, fewer requests are under way than the workers could take, so its
own rows/s are too few. Only the steady part counts, in which at least _FULL of the most requests are under way. What
rows cost is measured in tokens that take equally long: those that were generated, and those of the prompt that were
computed, weighted by how much longer the former keep a request under way (a fit over the sample). The work done in the
steady part by its length is the speed; mean work of a row by the speed is, by Little's law, the time for each row.

Rows are resampled (bootstrap; studentized, since lengths have heavy tails: Hall, "The Bootstrap and Edgeworth
Expansion", 1992, section 3.5, on the scale of logarithms) for the error of the mean work of a row; the variation
between blocks of the steady part gives the error of the speed. Both together make a range of 90 %.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..interval import Interval, around, t95
from ..pace import spread
from ..tally import Timing

LEAST_ROWS = 20
_FULL = 0.9
_RESAMPLES = 2000
_BLOCKS = 8
_EDGES = 6  # blocks before and after the steady part
_ITERATIONS = 50
_LEAST_ERROR = 0.02  # of the speed, whatever the sample says
_SHORT = 0.25  # of the time at least; a steady part that is shorter says less than the whole
_SEED = 19

_Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class SampleForecast:
    """What a sample says of a whole batch."""

    seconds: Interval  # for all rows, begin and end included
    rows_per_s: Interval  # in the steady part
    prompt_tokens: Interval  # of a row
    completion_tokens: Interval
    cached_share: float  # of the prompt tokens, 0 to 1
    is_steady: bool  # the sample was long enough to have a steady part


def forecast(timings: Sequence[Timing], rows: int) -> SampleForecast | None:
    """How long `rows` rows take that are like those of the sample, with as many requests under way.

    None for fewer than LEAST_ROWS, or where they took no time.
    """
    if len(timings) < LEAST_ROWS:
        return None
    began, ended = (np.array([getattr(one, name) for one in timings]) for name in ("began", "ended"))
    window, is_steady = _steady(began, ended)
    work = _work(timings, ended - began, ended <= window[1])
    rates = _rates(began, ended, work, window)
    speed = sum(rates) / len(rates)
    if speed <= 0:
        return None
    per_row = _mean(work)
    error = t95(max(1, len(rates) - 1)) * spread(rates) / math.sqrt(len(rates))
    error = max(error if len(rates) > 1 else 1.0, _LEAST_ERROR)
    seconds_per_row = around(
        per_row.likely / speed,
        math.hypot(math.log(per_row.likely / per_row.low), error),
        math.hypot(math.log(per_row.high / per_row.likely), error),
    )
    edges = (window[0] - began.min() + ended.max() - window[1]) / 2 if is_steady else 0.0
    prompts, cached, completions = (
        np.array([getattr(one, name) for one in timings], dtype=np.float64)
        for name in ("prompt_tokens", "cached_tokens", "completion_tokens")
    )
    return SampleForecast(
        seconds=seconds_per_row.times(rows).plus(float(edges)),
        rows_per_s=seconds_per_row.inverse(),
        prompt_tokens=_mean(prompts),
        completion_tokens=_mean(completions),
        cached_share=float(cached.sum() / prompts.sum()) if prompts.sum() else 0.0,
        is_steady=is_steady,
    )


def _work(timings: Sequence[Timing], seconds: _Floats, fits: npt.NDArray[np.bool_]) -> _Floats:
    """The work of each row, in generated tokens: those of the prompt count by their share of the time.

    `fits`: rows by whose time that share is measured. Those that end in the tail have been faster than others.
    """
    computed = np.array([one.uncached_tokens for one in timings], dtype=np.float64)
    generated = np.array([one.completion_tokens for one in timings], dtype=np.float64)
    if not generated.any() and not computed.any():
        return np.ones(len(timings))
    price = _price(computed[fits], generated[fits], seconds[fits])
    work: _Floats = generated + price * computed
    return np.maximum(work, max(1e-9, 1e-3 * float(work.mean())))


def _price(computed: _Floats, generated: _Floats, seconds: _Floats) -> float:
    """What a computed token costs, in generated ones: by least squares, without negative parts."""
    aa, bb, ab = computed @ computed, generated @ generated, computed @ generated
    ya, yb = seconds @ computed, seconds @ generated
    determinant = aa * bb - ab * ab
    if determinant > 1e-9 * aa * bb:
        a, b = (ya * bb - yb * ab) / determinant, (yb * aa - ya * ab) / determinant
        if a >= 0 and b > 0:
            return float(a / b)
    return 0.0 if bb else 1.0


def _steady(began: _Floats, ended: _Floats) -> tuple[tuple[float, float], bool]:
    """From the first to the last time at which nearly the most requests were under way; and whether that is a part of
    the sample that is long enough. Otherwise all of its time."""
    times = np.concatenate([began, ended])
    order = np.lexsort((np.concatenate([np.ones(len(began)), -np.ones(len(ended))]), times))
    steps = np.concatenate([np.ones(len(began)), -np.ones(len(ended))])[order]
    under_way, times = np.cumsum(steps), times[order]
    full = np.flatnonzero(under_way >= max(1.0, math.floor(_FULL * under_way.max())))
    begin, end = float(times[full[0]]), float(times[min(full[-1] + 1, len(times) - 1)])
    # Rows that all began together say nothing of how many follow each other.
    turned = int(np.count_nonzero((began > begin) & (began < end)))
    whole = float(ended.max() - began.min())
    if end - begin >= _SHORT * whole and turned >= LEAST_ROWS // 2:
        return (begin, end), True
    return (float(began.min()), float(ended.max())), False


def _rates(began: _Floats, ended: _Floats, work: _Floats, window: tuple[float, float]) -> list[float]:
    """Work per second in blocks of the window.

    What of a row's work was done when is not known, only that all that are under way advance alike: a row that ends in
    the tail, where few are left, was slower before. So the advance of each block of time is found by iteration that
    gives each row its work (Richardson and Lucy's; their fixed point is the most likely one for Poisson counts).
    """
    width = (window[1] - window[0]) / _BLOCKS
    if width <= 0:
        return [0.0]
    before = np.linspace(began.min(), window[0], _EDGES + 1)[:-1]
    after = np.linspace(window[1], ended.max(), _EDGES + 1)[1:]
    bounds = np.concatenate([before, np.linspace(*window, _BLOCKS + 1), after])
    inside = np.minimum(ended[:, None], bounds[1:]) - np.maximum(began[:, None], bounds[:-1])
    inside = np.clip(inside, 0.0, None) + 1e-12
    advance, done = np.ones(len(bounds) - 1), inside
    for _ in range(_ITERATIONS):
        done = inside * advance
        done *= (work / done.sum(axis=1))[:, None]
        advance = done.sum(axis=0) / inside.sum(axis=0)
    return [float(sum) / width for sum in done[:, _EDGES : _EDGES + _BLOCKS].sum(axis=0)]


def mean_of(values: Sequence[float]) -> Interval | None:
    """The mean of what these are drawn from, with its range; None where there are none."""
    return _mean(np.array(values, dtype=np.float64)) if values else None


def _mean(values: _Floats) -> Interval:
    """The mean of what the values are drawn from."""
    mean, count = float(values.mean()), len(values)
    error = float(values.std(ddof=1)) / (mean * math.sqrt(count)) if mean and count > 1 else 0.0
    if not error:
        return Interval(low=mean, likely=mean, high=mean)
    drawn = values[np.random.default_rng(_SEED).integers(0, count, (_RESAMPLES, count))]
    means = np.maximum(drawn.mean(axis=1), 1e-12)
    errors = np.maximum(drawn.std(axis=1, ddof=1) / (means * math.sqrt(count)), error / 10)
    low, high = np.quantile(np.log(means / mean) / errors, [0.05, 0.95])
    return around(mean, max(0.0, float(high) * error), max(0.0, float(-low) * error))
