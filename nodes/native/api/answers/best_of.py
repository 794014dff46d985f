"""The best of several answers to a prompt."""

from collections.abc import Sequence
from dataclasses import replace

from .generation import Choice, Delta


def keep_best(deltas: Sequence[Delta], choices: Sequence[Choice], *, of: int, keep: int) -> list[Delta]:
    """The deltas of the `keep` best of each `of` choices in a row, numbered anew, the best first.

    Best are those whose tokens have the highest log-probability on average; of equal ones, the first.
    """
    numbers: dict[int, int] = {}
    for start in range(0, len(choices), of):
        ranked = sorted(choices[start : start + of], key=lambda choice: -choice.mean_logprob)
        for choice in ranked[:keep]:
            numbers[choice.index] = len(numbers)
    return [replace(delta, index=numbers[delta.index]) for delta in deltas if delta.index in numbers]
