"""When a request is sent again, and how long to wait before. Pure, but for `Patience`, which keeps one time."""

import email.utils
import logging
import time
from collections.abc import Callable
from enum import Enum

from ....core.errors import BatchError
from ....core.net.openai import WORKER_LOST

FIRST_DELAY_S = 0.5
LONGEST_DELAY_S = 30.0
# An endpoint that fails at one row again and again while it lives is telling something about that row. What a proxy
# says of an endpoint that is away, and a connection that breaks off, count less than what an engine says of the row.
MAX_FAILURES = 3
MAX_GATEWAY_FAILURES = 8
# Of the latter, so many at least did not befall all rows in flight, or befell a row that was tried apart (suspects.py).
MIN_OWN_FAILURES = 3
MAX_DEATHS = 2  # so often all rows in flight may have failed together before a row is tried apart
_TELL_AFTER_S = 10.0
_log = logging.getLogger(__name__)


class Verdict(Enum):
    """What an HTTP status means for the row that got it."""

    DONE = "done"
    WAIT = "wait"  # the endpoint cannot now: says nothing about the row
    FAILED = "failed"  # it tried and failed: again, but not for ever
    REFUSED = "refused"  # the row's own fault
    LOCKED_OUT = "locked out"  # no row will fare better


def judge(status: int, code: str | None = None) -> Verdict:
    """Classify a status and an error's code; 503, 429, 408 and 425 ask to come back."""
    if code == WORKER_LOST:
        return Verdict.REFUSED
    if 200 <= status < 300:
        return Verdict.DONE
    if status in (408, 425, 429, 503):
        return Verdict.WAIT
    if status == 401:
        return Verdict.LOCKED_OUT
    return Verdict.FAILED if status >= 500 else Verdict.REFUSED


def most_failures(status: int | None) -> int:
    """How many attempts of one row may fail, the last one by an answer of this status; None: by no whole answer."""
    return MAX_GATEWAY_FAILURES if status is None or status > 500 else MAX_FAILURES


def delay_s(attempt: int, retry_after_s: float, jitter: float) -> float:
    """Seconds before attempt number `attempt` + 1 (from 1): doubling, capped, at least what the endpoint asked for.

    `jitter` is 0 to 1 and takes away up to half, so that the many rows of an outage do not come back as one.
    """
    doubled = min(LONGEST_DELAY_S, FIRST_DELAY_S * 2.0 ** min(attempt - 1, 10))
    return max(doubled * (1 - jitter / 2), min(retry_after_s, LONGEST_DELAY_S))


def parse_retry_after(value: str | None, now: float) -> float:
    """Seconds that a Retry-After header asks for, given as seconds or as a date; 0 where it says nothing usable."""
    if not value:
        return 0.0
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - now)
    except (ValueError, OverflowError):
        return 0.0


class Patience:
    """How long a batch waits for an endpoint that settles nothing at all, from its first failure on.

    It says once in the log why it waits.
    """

    def __init__(self, limit_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit_s, self._clock = limit_s, clock
        self._since: float | None = None
        self._has_told = False

    def reward(self) -> None:
        """The endpoint has settled something."""
        self._since, self._has_told = None, False

    def check(self, endpoint: str, why: str) -> None:
        """Take note of a failure. Raises BatchError where there have been only failures for too long."""
        now = self._clock()
        self._since = now if self._since is None else self._since
        waited = now - self._since
        if waited >= self._limit_s:
            raise BatchError(
                f"{endpoint} has not answered a request for {waited:.0f} s (last: {why}); nothing is lost: "
                "start the same command again when it is back"
            )
        if waited >= _TELL_AFTER_S and not self._has_told:
            self._has_told = True
            _log.warning(
                "%s has not answered for %.0f s (last: %s); the batch waits for it, %.0f s at most",
                endpoint, waited, why, self._limit_s,
            )  # fmt: skip
