"""How long a batch still takes, from outside: by what its drivers have noted in the ledger's history."""

from collections.abc import Sequence

from .history import Span, together
from .interval import Interval
from .pace import Pace

_MOST_LOOKS = 240


def seconds_left(histories: Sequence[Sequence[Span]], since: float, rows: int) -> Interval | None:
    """Seconds for so many further rows, as the drivers' own terminals estimate them; None while that is not known.

    Pure.

    Args:
        histories: of each driver.
        since: Unix time; what was done before says nothing, such as before a pause.
        rows: that are not settled.
    """
    recent = [history for history in histories if history and history[-1].until > since]
    if rows <= 0 or not recent:
        return None
    end = _known_until(recent)
    spans = together([_between(history, since, end) for history in recent], _MOST_LOOKS)
    pace, settled = Pace(), 0.0
    for span in spans:
        pace.see(span.since - spans[0].since, round(settled))
        settled += span.rows
    if spans:
        pace.see(spans[-1].until - spans[0].since, round(settled))
    return pace.left(rows)


def _known_until(histories: Sequence[Sequence[Span]]) -> float:
    """Until when all have noted what they did, those left out that have ended long before."""
    latest = max(history[-1].until for history in histories)
    at_work = [history for history in histories if history[-1].until > latest - 2 * history[-1].seconds]
    return min(history[-1].until for history in at_work)


def _between(history: Sequence[Span], since: float, end: float) -> list[Span]:
    """What was done in a time."""
    found = [span for span in history if span.until > since and span.since < end and span.seconds > 0]
    return [span.part(max(since, span.since), min(end, span.until)) for span in found]
