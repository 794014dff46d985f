"""Decide which rank failed first, and for which reason. Pure."""

from .messages import Gone

_REASON_S = 1.0  # within which somebody may know why a rank is gone


class Failures:
    """The ranks that have failed, in the order in which it was noticed.

    A closed connection is often noticed before the parent process reports the child's signal, so a failure without a
    reason waits a moment for one. Times are seconds of one monotonic clock.
    """

    def __init__(self) -> None:
        self._gone: dict[int, Gone] = {}  # in the order in which it was noticed
        self._decide_at = 0.0

    def __bool__(self) -> bool:
        return bool(self._gone)

    def record(self, gone: Gone, now: float, is_own: bool = False) -> None:
        """Add a failure. The reason of the rank itself (`is_own`) wins, then the first that anybody gives."""
        if not self._gone:
            self._decide_at = now + _REASON_S
        known = self._gone.get(gone.rank)
        if known is None or not known.reason or is_own:
            self._gone[gone.rank] = gone

    def first(self, now: float) -> Gone | None:
        """Return the first failure; None while there is none, or while its reason may still come."""
        first = next(iter(self._gone.values()), None)
        return first if first and (first.reason or now >= self._decide_at) else None
