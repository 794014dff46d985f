"""Which rank is gone, and why: the first that was missed, by the best word of it. Pure."""

from .messages import Gone

_WORD_S = 1.0  # within which somebody may know why a rank is gone


class Failures:
    """A closed connection is often noticed before the word of the process that has started the rank.

    That one knows the signal; so whoever is missed without a reason waits for one for a moment. Times are those of one
    clock, in seconds.
    """

    def __init__(self) -> None:
        self._gone: dict[int, Gone] = {}  # in the order in which it was noticed
        self._decide_at = 0.0

    def __bool__(self) -> bool:
        return bool(self._gone)

    def note(self, gone: Gone, now: float, is_own: bool = False) -> None:
        """What a rank says of itself counts most (`is_own`), then whoever gives a reason first."""
        if not self._gone:
            self._decide_at = now + _WORD_S
        known = self._gone.get(gone.rank)
        if known is None or not known.reason or is_own:
            self._gone[gone.rank] = gone

    def first(self, now: float) -> Gone | None:
        """The loss; None while there is none, or its reason may still come."""
        first = next(iter(self._gone.values()), None)
        return first if first and (first.reason or now >= self._decide_at) else None
