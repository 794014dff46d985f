"""The policy `least_load`."""

from collections.abc import Sequence

from .load import least_loaded
from .policy import Memoryless, Route, RoutedRequest, Worker


class LeastLoad(Memoryless):
    """The fewest requests in flight relative to capacity; of equals the one that was chosen the longest ago."""

    def choose(self, request: RoutedRequest, workers: Sequence[Worker]) -> Route | None:
        """The worker with the least load; None if there are none. The request itself makes no difference."""
        return Route(least_loaded(workers), "load") if workers else None
