"""How long a step takes, learnt from the steps before it."""

from collections.abc import Sequence
from dataclasses import dataclass

_KEEP = 0.98  # of what is known, at each step: other programs come and go, and kernels are compiled meanwhile
_SWEEPS = 3  # over all coefficients, at each step


@dataclass(frozen=True, slots=True)
class StepWork:
    """What one step computes."""

    decodes: int = 0  # rows of sequences that generate, draft tokens included
    tokens: int = 0  # of prompts
    pairs: float = 0.0  # of a prompt's token and one before it: what attention computes
    scored: int = 0  # rows of logits for log-probabilities of prompts


class StepTime:
    """Seconds of a step: a + b * decodes + c * tokens + d * pairs + e * scored, none of them below zero.

    Least squares of the relative error over recent steps, so that a stall of the machine weighs little. What the steps
    so far cannot tell apart counts as a cost of tokens: a prompt of a new kind is rather taken for dearer than it is.
    """

    def __init__(self) -> None:
        self._squares = [[0.0] * 5 for _ in range(5)]
        self._sums = [0.0] * 5
        self._costs = [0.0] * 5

    @property
    def of_token(self) -> float:
        """Seconds for a prompt's token, without attention."""
        return self._costs[0]

    @property
    def of_pair(self) -> float:
        """Seconds for a prompt's token to attend to one before it."""
        return self._costs[1]

    @property
    def of_scored(self) -> float:
        """Seconds for a row of logits that scores a prompt's token, beside the token itself."""
        return self._costs[2]

    def of(self, work: StepWork) -> float:
        """Seconds of a step; 0 as long as nothing is known."""
        return sum(cost * value for cost, value in zip(self._costs, _values(work), strict=True))

    def observe(self, work: StepWork, seconds: float) -> None:
        """Take in a step that took so many `seconds`."""
        if seconds <= 0:
            return
        values = [value / seconds for value in _values(work)]
        for row, one in zip(self._squares, values, strict=True):
            for place, other in enumerate(values):
                row[place] = _KEEP * row[place] + one * other
        self._sums = [_KEEP * before + value for before, value in zip(self._sums, values, strict=True)]
        for _ in range(_SWEEPS):
            self._improve()

    def _improve(self) -> None:
        """Coordinate descent: each cost becomes the best beside the others."""
        for place, row in enumerate(self._squares):
            if row[place] > 1e-12:
                others = sum(a * b for a, b in zip(row, self._costs, strict=True)) - row[place] * self._costs[place]
                self._costs[place] = max((self._sums[place] - others) / row[place], 0.0)


def _values(work: StepWork) -> Sequence[float]:
    return work.tokens, work.pairs, work.scored, work.decodes, 1.0
