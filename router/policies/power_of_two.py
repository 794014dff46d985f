"""The policy `power_of_two`."""

import random
from collections.abc import Sequence

from .load import least_loaded
from .policy import Memoryless, Route, RoutedRequest, Worker


class PowerOfTwo(Memoryless):
    """The less loaded one of two random workers (Mitzenmacher 2001)."""

    def __init__(self, relay: int = 0) -> None:
        super().__init__(relay)
        self._random = random.Random(relay)

    def choose(self, request: RoutedRequest, workers: Sequence[Worker]) -> Route | None:
        """The less loaded one of two; None if there are none. The request itself makes no difference."""
        if len(workers) > 2:
            workers = self._random.sample(workers, 2)
        return Route(least_loaded(workers), "load") if workers else None
