"""How long a worker has said nothing to any of its requests.

A worker whose health page answers may have stopped computing. A relay that hears nothing from a worker for much longer
than is usual tells the supervisor, which asks the worker for a token.
"""

from collections.abc import Iterable
from typing import Protocol

LEAST_S = 5.0  # of silence that is worth a question
_TIMES_USUAL = 4.0
_STEP = 0.1  # the part of one request in the usual time


class Waiting(Protocol):
    """A request at a worker."""

    heard: bool  # whether anything has come since this was set to False
    heard_at: float  # when something came, or the request was sent, as far as it was looked at
    is_paused: bool  # its client is behind, so that nothing can come


class Silence:
    """How long one worker has said nothing. Times are monotonic seconds."""

    def __init__(self, now: float) -> None:
        self.is_long = False  # longer than is usual: the supervisor is asking the worker
        self._usual_s = 0.0  # until the first byte of an answer
        self._heard_at = now
        self._times = 1.0  # of the usual patience: more after each question in the same silence

    def ended(self, seconds: float) -> None:
        """Learn from the first byte of an answer: how long it took."""
        self._usual_s = self._usual_s + (seconds - self._usual_s) * _STEP if self._usual_s else seconds

    def listen(self, requests: Iterable[Waiting], now: float) -> float:
        """Look which requests something has come for; seconds since something came for any, while one waits."""
        waits_since = now
        for request in requests:
            if request.heard:
                request.heard, request.heard_at, self._heard_at = False, now, now
            elif request.is_paused:
                request.heard_at = now
            else:
                waits_since = min(waits_since, request.heard_at)
        return now - max(waits_since, self._heard_at)

    def is_new(self, seconds: float, prefill_s: float) -> bool:
        """Whether a silence of so many seconds is a reason to ask now: it is not asked for all the time.

        prefill_s: what the prompts that wait there take, as estimated.
        """
        patience = max(LEAST_S, _TIMES_USUAL * max(self._usual_s, prefill_s))
        if seconds < patience:
            self.is_long, self._times = False, 1.0
            return False
        self.is_long = True
        if seconds < patience * self._times:
            return False
        self._times *= 2
        return True
