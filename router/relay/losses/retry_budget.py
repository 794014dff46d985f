"""How many further attempts all requests of a relay may make together."""

import time
from collections.abc import Callable

_FREE = 10.0  # attempts that are always there
_FREE_S = 10.0  # in so many seconds
_MOST_EARNED = 1000.0  # as much as a minute of a busy relay: not what a quiet week has earned


class RetryBudget:
    """A token bucket that requests and time fill, so that a fault of all workers does not multiply the load.

    Args:
        share: further attempts that may be made, relative to the requests that there are.
        clock: seconds, monotonic.
    """

    def __init__(self, share: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._share, self._clock = share, clock
        self._free, self._at = _FREE, clock()
        self._earned = 0.0

    def request(self) -> None:
        """Note a new request."""
        if self._earned < _MOST_EARNED:
            self._earned += self._share

    def grant(self, attempts: int) -> None:
        """Allow so many more: a worker was lost, and what it had in flight goes on elsewhere."""
        self._earned += attempts

    def spend(self) -> bool:
        """Take one further attempt; False where none is left."""
        now = self._clock()
        self._free = min(_FREE, self._free + (now - self._at) * _FREE / _FREE_S)
        self._at = now
        if self._earned >= 1:
            self._earned -= 1
        elif self._free >= 1:
            self._free -= 1
        else:
            return False
        return True
