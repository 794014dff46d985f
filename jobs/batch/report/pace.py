"""How long a batch still takes, by how fast it has gone of late."""

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

from .interval import Interval, around, t95

_MOST_LOOKS = 240  # beyond, every second one is forgotten: the looks of a week are hours apart
_BLOCKS = 5  # fewer and longer ones: what follows each other in time is alike, and blocks should not be
_RECENT = 0.5  # of the time so far; what came before says little of what comes next
_LONGEST_S = 3600.0
_LEAST_S = 10.0
_MOST_LOG = 3.0  # a factor of 20 either way: more is not worth saying


class _Look(NamedTuple):
    at: float  # seconds since the driver began
    settled: int


class Pace:
    """Rows settled over time, of all drivers."""

    def __init__(self) -> None:
        self._looks: list[_Look] = []
        self._step_s = 0.0

    def see(self, at: float, settled: int) -> None:
        """Note how many rows are settled at a time; times rise."""
        if self._looks and at - self._looks[-1].at < self._step_s:
            return
        self._looks.append(_Look(at, settled))
        if len(self._looks) > _MOST_LOOKS:
            del self._looks[1:-1:2]
            self._step_s = 2 * (self._looks[-1].at - self._looks[0].at) / _MOST_LOOKS

    @property
    def rows_per_s(self) -> float | None:
        """Of late; None while nothing is known."""
        recent = self._recent()
        seconds = recent[-1].at - recent[0].at if recent else 0.0
        return (recent[-1].settled - recent[0].settled) / seconds if seconds else None

    def left(self, rows: int) -> Interval | None:
        """Seconds for so many further rows; None while nothing was settled of late."""
        recent, rate = self._recent(), self.rows_per_s
        if rows <= 0:
            return Interval(low=0.0, likely=0.0, high=0.0)
        if not rate or recent[-1].at - recent[0].at < _LEAST_S:
            return None
        rates = _block_rates(recent)
        block_s = (recent[-1].at - recent[0].at) / len(rates)
        return time_for(rows, rate, spread(rates), len(rates), block_s)

    def _recent(self) -> Sequence[_Look]:
        """The looks of late. Not the first ones, while workers started and nothing could be settled."""
        if not self._looks:
            return ()
        first, last = self._looks[0].at, self._looks[-1].at
        since = max(last - _LONGEST_S, min(last - (last - first) * _RECENT, last - _LEAST_S))
        return [look for look in self._looks if look.at >= since]


def time_for(rows: int, rate: float, variation: float, blocks: int, block_s: float) -> Interval:
    """Seconds for `rows` at a rate that was measured over some blocks of time, and varies from one to the next.

    The mean of the past blocks is uncertain, and so is that of the blocks to come: both by the variation, each divided
    by the root of its number of blocks.

    Args:
        rows: to come.
        rate: rows/s.
        variation: standard deviation of the blocks' rates, relative to their mean.
        blocks: how many there were.
        block_s: how long each was.
    """
    seconds = rows / rate
    to_come = max(1.0, seconds / block_s)
    error = variation * math.sqrt(1 / blocks + 1 / to_come)
    away = min(_MOST_LOG, t95(max(1, blocks - 1)) * error)
    return around(seconds, away, away)


def spread(rates: Sequence[float]) -> float:
    """Standard deviation relative to the mean; 1 where there is only one, or nothing was done."""
    mean = sum(rates) / len(rates)
    if len(rates) < 2 or not mean:
        return 1.0
    return math.sqrt(sum((rate - mean) ** 2 for rate in rates) / (len(rates) - 1)) / mean


def _block_rates(looks: Sequence[_Look]) -> list[float]:
    """Rows/s in blocks of time of about the same length, at least two looks each."""
    size = max(1, (len(looks) - 1) // _BLOCKS)
    ends = [*range(0, len(looks) - 1, size)]
    if len(ends) > 1 and len(looks) - 1 - ends[-1] < size:
        ends.pop()
    ends.append(len(looks) - 1)
    pairs = itertools.pairwise(ends)
    return [(looks[end].settled - looks[begin].settled) / (looks[end].at - looks[begin].at) for begin, end in pairs]
