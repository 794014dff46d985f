"""Which rows of an input are sent."""

import random
from bisect import bisect_left
from collections.abc import Container, Sequence
from itertools import accumulate

from ..inputs.plan import Plan, Shard

_SEED = 20_240_229  # any; always the same, so that a sample that is started again is the same


class Selection:
    """Rows of a plan: all, the first `limit`, or `sample` that are drawn from all, the same ones each time."""

    def __init__(self, plan: Plan, limit: int | None = None, sample: int | None = None) -> None:
        self.is_all = limit is None and sample is None
        self._firsts = list(accumulate((shard.rows for shard in plan.shards), initial=0))
        self._places: Sequence[int] = range(plan.rows)
        if limit is not None:
            self._places = range(min(limit, plan.rows))
        elif sample is not None and sample < plan.rows:
            self._places = sorted(random.Random(_SEED).sample(range(plan.rows), sample))

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return len(self._places)

    def of(self, shard: Shard) -> Container[int]:
        """Rows of a shard by their numbers within it; empty, and false, where there are none."""
        first = self._firsts[shard.number]
        begin, end = bisect_left(self._places, first), bisect_left(self._places, first + shard.rows)
        if isinstance(self._places, range):
            return range(begin - first, end - first)
        return {place - first for place in self._places[begin:end]}

    def count(self, shard: Shard) -> int:
        """How many rows of a shard there are."""
        first = self._firsts[shard.number]
        return bisect_left(self._places, first + shard.rows) - bisect_left(self._places, first)
