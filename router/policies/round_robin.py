"""The policy `round_robin`."""

from collections.abc import Sequence

from .policy import Memoryless, Route, RoutedRequest, Worker


class RoundRobin(Memoryless):
    """The worker that was chosen the longest ago, by any relay's count of its own turns."""

    def choose(self, request: RoutedRequest, workers: Sequence[Worker]) -> Route | None:
        """The next in turn; None if there are none. The request itself makes no difference."""
        if not workers:
            return None
        return Route(min(workers, key=lambda worker: worker.turn), "turn")
