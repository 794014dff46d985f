"""How fast requests leave, for Retry-After."""

import math

_MEMORY_S = 30.0
_AT_ONCE_S = 0.05  # what has left within so short a time counts as if it had left at its beginning
_UNKNOWN_S = 30.0  # what is said when nothing has left for long


class LeavingRate:
    """Requests/s that leave, as a mean of about the last half minute in which requests waited."""

    __slots__ = ("_last", "_since", "_sum")

    def __init__(self, now: float) -> None:
        self._since = self._last = now
        self._sum = 0.0  # of what has left, each weighted by e^(-age / memory)

    def begin(self, now: float) -> None:
        """Requests begin to wait: what left long before says how few came, not how many can be answered."""
        if now - self._last > _MEMORY_S:
            self._since, self._last, self._sum = now, now, 0.0

    def note(self, now: float) -> None:
        """A request has left."""
        if now - self._last > _AT_ONCE_S:
            self._sum *= math.exp((self._last - now) / _MEMORY_S)
            self._last = now
        self._sum += 1.0

    def wait_s(self, requests: int, now: float, most_s: float) -> int:
        """Whole seconds, at least 1 and at most `most_s`, in which so many requests leave."""
        # The same weights over the whole time give the seconds that the sum stands for. What has left in a few
        # milliseconds says little: as if it had been a second.
        seconds = max(1.0, _MEMORY_S * -math.expm1((self._since - now) / _MEMORY_S))
        left = self._sum * math.exp((self._last - now) / _MEMORY_S)
        wait = requests * seconds / left if left > 1e-6 else _UNKNOWN_S
        return max(1, math.ceil(min(wait, most_s)))
