"""How many draft tokens pay: by the measured times of steps and the acceptance rate."""

from collections.abc import Sequence
from dataclasses import dataclass

# Until more is known, a row more is taken to make a step of one row so much longer.
_SLOPE, _PRIOR = 0.15, 0.5
_MARGIN = 1.15  # by which a guess must promise more than it costs: rates are estimates
_KEEP = 0.98  # of what is known, at each step: times change with the length of contexts
# Acceptance is that of the last ten tries or so. A new request begins with what others had, weighing two tries.
_RECENT, _INHERITED, _FIRST = 0.9, 2.0, 0.7
_PROBE_STEPS = 32  # without a guess, until one is risked


class StepCost:
    """Seconds of a step as intercept + slope * rows: least squares over recent steps."""

    def __init__(self) -> None:
        self._weight = self._rows = self._rows2 = self._seconds = self._product = 0.0

    def observe(self, rows: int, seconds: float) -> None:
        """Take in one step: it had `rows` rows and took so many `seconds`."""
        for name, value in (("_weight", 1.0), ("_rows", rows), ("_rows2", rows * rows), ("_seconds", seconds),
                            ("_product", rows * seconds)):  # fmt: skip
            setattr(self, name, _KEEP * getattr(self, name) + value)

    def line(self) -> tuple[float, float]:
        """Intercept and slope; (0, 0) before the first observation."""
        if not self._weight:
            return 0.0, 0.0
        rows, seconds = self._rows / self._weight, self._seconds / self._weight
        variance = self._rows2 / self._weight - rows * rows
        covariance = self._product / self._weight - rows * seconds
        expected = seconds * _SLOPE / (1 + _SLOPE * (rows - 1))
        slope = min(max((covariance + _PRIOR * expected) / (variance + _PRIOR), 0.0), seconds / rows)
        return seconds - slope * rows, slope


@dataclass(slots=True)
class _Rate:
    hits: float
    tries: float
    idle: int = 0  # steps without a guess

    @property
    def value(self) -> float:
        return self.hits / self.tries


class Budget:
    """Decides how many draft tokens each sequence of a step gets."""

    def __init__(self, most: int) -> None:
        self._most, self.cost = most, StepCost()
        self.guess_seconds = 0.0  # that a guess takes by itself, beside its row in the step
        self._all = _Rate(_FIRST, 1.0)
        self._rates: dict[str, _Rate] = {}

    def share(self, ids: Sequence[str], room: int) -> list[int]:
        """The number of draft tokens for each sequence, at most `room` in all.

        A sequence whose guesses are right with probability a gains a^j tokens from its j-th. Guesses are added, best
        first, while they raise tokens per second. One that gets none for long gets one, to see whether things changed.
        """
        intercept, slope = self.cost.line()
        price, tokens = slope + self.guess_seconds, float(len(ids))
        seconds = intercept + slope * len(ids)
        rates = [self._rate(id) for id in ids]
        gains = ((rate.value**j, i) for i, rate in enumerate(rates) for j in range(1, self._most + 1))
        counts = [0] * len(ids)
        for gain, i in sorted(gains, reverse=True)[:room]:
            if gain * seconds <= _MARGIN * tokens * price:
                break
            counts[i] += 1
            tokens, seconds = tokens + gain, seconds + price
        for i, rate in enumerate(rates):
            rate.idle = 0 if counts[i] else rate.idle + 1
            if rate.idle > _PROBE_STEPS and sum(counts) < room:
                counts[i], rate.idle = 1, 0
        return counts

    def learn(self, id: str, guessed: int, accepted: int) -> None:
        """Count `accepted` of `guessed` draft tokens as right, the next one as wrong, and none behind it."""
        tried = min(accepted + 1, guessed)
        for rate in (self._rate(id), self._all):
            rate.hits, rate.tries = _RECENT * rate.hits + accepted, _RECENT * rate.tries + tried

    def forget(self, id: str) -> None:
        """Drop what is known of a request that is over."""
        self._rates.pop(id, None)

    def _rate(self, id: str) -> _Rate:
        if id not in self._rates:
            self._rates[id] = _Rate(self._all.value * _INHERITED, _INHERITED)
        return self._rates[id]
