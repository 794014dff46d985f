"""Figures as people read them."""

from .interval import Interval

_MINUTE, _HOUR, _DAY = 60, 3600, 86_400


def duration(seconds: float) -> str:
    """Such as 8 s, 4 min 30 s, 25 min, 3 h 20 min, 2 d 5 h."""
    whole = max(0, round(seconds))
    if whole >= _DAY:
        return f"{whole // _DAY} d {whole % _DAY // _HOUR} h"
    if whole >= _HOUR:
        return f"{whole // _HOUR} h {whole % _HOUR // _MINUTE} min"
    if whole >= 10 * _MINUTE:
        return f"{whole // _MINUTE} min"
    return f"{whole // _MINUTE} min {whole % _MINUTE} s" if whole >= _MINUTE else f"{whole} s"


def about(span: Interval) -> str:
    """A time with its range, such as 25 min (22 min to 31 min); without it where both ends read the same."""
    low, high = duration(span.low), duration(span.high)
    return duration(span.likely) if low == high else f"{duration(span.likely)} ({low} to {high})"


def figure(value: float) -> str:
    """Three digits or so, such as 0.042, 7.31, 82.5, 1,204."""
    if 0 < value < 0.001:
        return "<0.001"
    digits = 3 if value < 1 else 2 if value < 10 else 1 if value < 100 else 0
    return f"{value:,.{digits}f}"


def figures(span: Interval) -> str:
    """A figure with its range, such as 7.31 (6.90 to 7.80)."""
    low, high = figure(span.low), figure(span.high)
    return figure(span.likely) if low == high else f"{figure(span.likely)} ({low} to {high})"


def percent(share: float) -> str:
    """Such as 35 %."""
    return f"{100 * share:.0f} %"


def plural(number: float, word: str) -> str:
    """Such as 1 row, 1,319 rows."""
    return f"{number:,.0f} {word}{'' if number == 1 else 's'}"


def count_per_s(rate: float) -> str:
    """A rate of tokens, whole above 10."""
    return f"{rate:,.0f}" if rate >= 10 else f"{rate:.1f}"
