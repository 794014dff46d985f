"""What a request is told that gets no place."""

from ..tenants.refusal import Refused
from ..tenants.tenant import Priority
from .lane import Lane


def queue_full(lane: Lane, priority: Priority, now: float, timeout_s: float) -> Refused:
    """Too many requests wait already."""
    ahead = _ahead(lane, priority)
    message = (
        f"too many requests of priority {priority.name.lower()} are waiting for a worker ({ahead}); try again later"
    )
    return Refused(429, message, lane.rate.wait_s(ahead, now, timeout_s), "queue_full")


def waited_too_long(lane: Lane, priority: Priority, now: float, timeout_s: float) -> Refused:
    """The deadline has passed."""
    message = f"no worker was free for this request within {timeout_s:g} s; try again later"
    return Refused(503, message, lane.rate.wait_s(_ahead(lane, priority), now, timeout_s), "queue_timeout")


def _ahead(lane: Lane, priority: Priority) -> int:
    """Requests that go before one of that class which comes now."""
    return sum(lane.counts()[: priority + 1])
