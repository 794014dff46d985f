"""How many requests of a batch are in flight: additive increase, multiplicative decrease.

An endpoint that tells its load is given so much that every worker's batch is full and few requests wait. Of one that
does not, throughput is measured: more requests as long as it rises with them. Pure, but for the clock that is given.
"""

import math
from collections.abc import Callable

from .load import Load

LEAST = 4
MOST_UNKNOWN, MOST_TOLD = 1024, 8192  # of endpoints that do not tell their capacity, and of those that tell a queue
START = 32
QUEUE_AHEAD = 1.25  # some more than the workers compute at once, so that none of them waits for us
_MOST_ADDED = 1024  # requests that wait for workers which are not there yet
_DECREASE, _REFUSED = 0.8, 0.5
_BETTER = 1.05  # times the throughput: more than noise
_SETTLED_S = 1.0
_PROBE_EVERY = 4  # measurements


class Concurrency:
    """The wanted number of requests in flight, `size`."""

    def __init__(self, clock: Callable[[], float], fixed: int | None = None) -> None:
        self.size = fixed or START
        self._fixed, self._clock = fixed is not None, clock
        self._told = False  # the endpoint tells its load
        self._ceiling: int | None = None  # by what the workers compute at once
        self._fast = True  # doubling, as nothing has spoken against it yet
        self._changed_at = clock()
        self._climb = _Climb(self._changed_at)

    def see(self, load: Load, in_flight: int) -> None:
        """Take note of the endpoint's load while so many of our requests are in flight."""
        if self._fixed:
            return
        self._told = True
        if load.capacity is not None and self._follow_capacity(load, load.capacity):
            return
        allowed = max(2 * load.workers, load.running // 4)
        if load.waiting > allowed:
            # Never below what is computed of ours: the queue shrinks later than the size, and would be cut twice.
            ours = in_flight * load.running // (load.running + load.waiting)
            self._resize(min(self.size, max(int(self.size * _DECREASE), ours + allowed // 2)))
            self._fast = False
        elif load.waiting <= allowed // 2 and in_flight >= 0.9 * self.size and 2 * load.running >= in_flight:
            self._resize(self.size * 2 if self._fast and self._ceiling is None else self.size + self._step)

    def answered(self, sent_at: float, tokens: int, in_flight: int) -> None:
        """Take note of an answer to a request that was sent at this time, and of the tokens generated for it."""
        if self._fixed or self._told or sent_at < self._changed_at:
            return
        rate = self._climb.measure(tokens, self.size, self._clock())
        if rate is not None and in_flight >= 0.9 * self.size:
            self._resize(self._climb.next_size(rate, self.size, self._step))

    def refused(self, sent_at: float) -> None:
        """Take note of a request that the endpoint had no room for: halve, once for all that were sent before."""
        if self._fixed or sent_at < self._changed_at:
            return
        self._fast = self._climb.fast = False
        self._climb.forget()
        self._resize(int(self.size * _REFUSED))

    @property
    def _step(self) -> int:
        return max(LEAST, (self._ceiling or self.size) // 16)

    def _follow_capacity(self, load: Load, capacity: int) -> bool:
        """Grow and shrink at once with the workers; whether they are others than before."""
        asked = (capacity + min(load.may_be_added, _MOST_ADDED)) * QUEUE_AHEAD
        ceiling = max(LEAST, math.ceil(asked))
        before, self._ceiling = self._ceiling, ceiling
        if before is None:
            self._resize(ceiling)
        elif before != ceiling:
            self._resize(self.size + ceiling - before if ceiling > before else self.size)
        return before != ceiling

    def _resize(self, size: int) -> None:
        most = self._ceiling or (MOST_TOLD if self._told else MOST_UNKNOWN)
        size = max(LEAST, min(size, most))
        if size != self.size:
            self.size, self._changed_at = size, self._clock()
            self._climb.restart(self._changed_at)


class _Climb:
    """Finding the least size with the best throughput, by measuring it."""

    def __init__(self, now: float) -> None:
        self.fast = True
        self._best: tuple[float, int] | None = None  # tokens/s, and the size
        self._since_probe = 0
        self.restart(now)

    def restart(self, now: float) -> None:
        """Measure anew: the size is another."""
        self._skipped = self._count = self._tokens = 0
        self._began = now

    def forget(self) -> None:
        """The endpoint is another, or in another state."""
        self._best = None

    def measure(self, tokens: int, size: int, now: float) -> float | None:
        """Count an answer; the throughput, when enough of them have come.

        Answers of one turn of all requests are left out, and the next one's counted: so a server that answers many at
        once does not seem fast.
        """
        if self._skipped < size:
            self._skipped += 1
            self._began = now
            return None
        self._count += 1
        self._tokens += tokens + 1
        if self._count < size or now - self._began < _SETTLED_S:
            return None
        rate = self._tokens / (now - self._began)
        self._count = self._tokens = 0
        self._began = now
        return rate

    def next_size(self, rate: float, size: int, step: int) -> int:
        """Which size to try after one with this throughput."""
        if self._best is None or (size != self._best[1] and rate > self._best[0] * _BETTER):
            self._best = (rate, size)
            return size * 2 if self.fast else size + step
        best_rate, best_size = self._best
        if size != best_size:  # no better than the best, or worse
            self.fast = False
            self._since_probe = 0
            return best_size
        self._best = ((best_rate + rate) / 2, best_size)  # the endpoint, or its requests, may be others by now
        self._since_probe += 1
        return size + step if self._since_probe % _PROBE_EVERY == 0 else size
