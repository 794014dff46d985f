"""Estimates with a range, as they are shown and kept."""

import math

import msgspec

# Quantiles 0.95 of Student's t by degrees of freedom (1 to 30), as in any table of them: a two-sided range of 90 %.
_T95 = (
    6.314, 2.920, 2.353, 2.132, 2.015, 1.943, 1.895, 1.860, 1.833, 1.812, 1.796, 1.782, 1.771, 1.761, 1.753,
    1.746, 1.740, 1.734, 1.729, 1.725, 1.721, 1.717, 1.714, 1.711, 1.708, 1.706, 1.703, 1.701, 1.699, 1.697,
)  # fmt: skip
_Z95 = 1.645


class Interval(msgspec.Struct, frozen=True, kw_only=True):
    """A likely value, and the ends of a range that has the true one in 90 of 100 cases."""

    low: float
    likely: float
    high: float

    def times(self, factor: float) -> "Interval":
        """All three multiplied by a factor that is not negative."""
        return Interval(low=self.low * factor, likely=self.likely * factor, high=self.high * factor)

    def plus(self, offset: float) -> "Interval":
        """All three moved."""
        return Interval(low=self.low + offset, likely=self.likely + offset, high=self.high + offset)

    def inverse(self) -> "Interval":
        """One by each of them, which are positive."""
        return Interval(low=1 / self.high, likely=1 / self.likely, high=1 / self.low)

    def covers(self, value: float) -> bool:
        """Whether the range has the value."""
        return self.low <= value <= self.high


def exactly(value: float) -> Interval:
    """A value that is known."""
    return Interval(low=value, likely=value, high=value)


def t95(freedom: int) -> float:
    """The quantile 0.95 of Student's t with so many degrees of freedom, at least 1."""
    return _T95[freedom - 1] if freedom <= len(_T95) else _Z95 * (1 + 1 / (4 * (freedom - 1)))


def around(likely: float, down: float, up: float) -> Interval:
    """A range by its distances on the logarithmic scale; `likely` is positive, the distances are not negative."""
    return Interval(low=likely * math.exp(-down), likely=likely, high=likely * math.exp(up))
