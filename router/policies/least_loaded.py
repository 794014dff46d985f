"""The policy `least_loaded`."""

from collections.abc import Sequence

from ..fleet.worker import Worker
from .policy import RoutedRequest


class LeastLoaded:
    """The lowest in-flight count relative to capacity; of equals the one that was chosen the longest ago."""

    def choose(self, request: RoutedRequest, workers: Sequence[Worker]) -> Worker | None:
        """The worker with the lowest load; None if there are no workers. Every request counts alike."""
        return min(workers, key=lambda worker: (worker.load, worker.turn), default=None)
