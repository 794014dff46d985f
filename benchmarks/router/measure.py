"""Rounds in turns, and what is said of them."""

import statistics
from collections.abc import Callable, Iterable
from typing import Any

import uvloop

from .targets import Target

Figures = dict[str, float]


def in_turns(targets: list[Target], rounds: int, once: Callable[[Target], Any]) -> dict[str, list[Figures]]:
    """The figures of `rounds` runs of the coroutine function `once` for each target: A B C, then C B A, and so on."""
    runs: dict[str, list[Figures]] = {target.name: [] for target in targets}
    for number in range(rounds):
        for target in targets if number % 2 == 0 else reversed(targets):
            runs[target.name].append(uvloop.run(once(target)))
    return runs


def medians(runs: dict[str, list[Figures]]) -> dict[str, Figures]:
    """The median of each figure."""
    return {
        name: {key: statistics.median(run[key] for run in found) for key in found[0]} for name, found in runs.items()
    }


def quantile(values: Iterable[float], share: float) -> float:
    """The value that `share` of them do not exceed; 0 where there are none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0
