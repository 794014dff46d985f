"""Whether a worker may get requests, by what its probes and its requests have shown. Times are monotonic seconds.

    trusted ── /health fails ──► silent ── /health is good ──► trusted
       │                           │ three times in a row
       │ its requests fail,        ▼
       └ or it makes no token ► ejected ── a token, after 5 s, 10 s, ... 60 s ──► trusted, in small steps

That one request fails ejects nobody: it has the worker asked for its health at once, and what counts is the answer.
Nor does a worker's silence, or that it refuses what others answer: it is asked for a token at once.
"""

from collections import deque

NOT_PROBED = "not probed yet"
# Kinds of Suspect that count as faults of a worker that is healthy otherwise: the answer broke off (lost, body,
# stream), was no answer (garbage), or was 5xx (status). Refused connections do not count.
FAULTS = frozenset({"lost", "body", "stream", "garbage", "status"})
# Kinds of Suspect after which the worker is asked for a token: nothing has come from it for long, or it answers 4xx and
# nothing else while others of its model answer well.
SILENT, REFUSING = "silent", "refusing"
FAULT_WINDOW_S = 30.0
MOST_FAULTS = 3
# A worker that answers more than nine of ten requests well is not ejected for the others: they may be the cause.
_FAULTY_SHARE = 0.1
# Everything that breaks at the same moment is one fault: a gate that is started anew cuts all its streams.
_SAME_MOMENT_S = 0.25
_MISSES_TO_EJECT = 3
_TOKEN_MISSES_TO_EJECT = 2
FIRST_WAIT_S = 5.0
LONGEST_WAIT_S = 60.0
# A worker that stays trusted for so long is none that comes and goes: its next ejection begins with the first wait.
_STEADY_S = 120.0
IDLE_S = 30.0  # without a request that succeeds: then it is asked for a token


class Trust:
    """What is known of one life of a worker."""

    def __init__(self, now: float) -> None:
        self.trouble = NOT_PROBED  # why it gets no requests; empty while it does
        self.is_ejected = False
        self.has_stopped = False  # it answers nobody: what waits there waits in vain
        self.lost_at: float | None = now  # since when it gets none
        self.returned_at: float | None = None  # when it came back after its last ejection
        self.served_total = 0
        self._was_trusted = False
        self._answers = False  # whether the last probe of its health was good
        self._misses = self._token_misses = 0
        self._faults: deque[tuple[float, int]] = deque(maxlen=MOST_FAULTS)  # when, and `served_total` then
        self._wait_s = FIRST_WAIT_S
        self._retry_at = 0.0
        self._proven_at = now  # when it has last produced something, or was asked to

    @property
    def is_trusted(self) -> bool:
        """Whether the worker may get requests."""
        return not self.trouble

    @property
    def was_probed(self) -> bool:
        """Whether it has ever been asked for its health."""
        return self.trouble != NOT_PROBED

    def probed(self, now: float, trouble: str) -> None:
        """Take the answer to /health; empty if it was good."""
        self._answers = not trouble
        self._misses = self._misses + 1 if trouble else 0
        if self.is_ejected:
            return
        self.has_stopped &= bool(trouble)
        if self._misses >= _MISSES_TO_EJECT and self._was_trusted:
            self.eject(now, trouble)
            self._retry_at = now  # it has been away for a while already
        else:
            self._set_trouble(now, trouble)

    def fault(self, now: float, kind: str) -> bool:
        """Take a failed request; whether the worker is to be ejected for it, should there be another one to ask."""
        if kind not in FAULTS or self.is_ejected:
            return False
        if not self._faults or now - self._faults[-1][0] >= _SAME_MOMENT_S:
            self._faults.append((now, self.served_total))
        if len(self._faults) < MOST_FAULTS or now - self._faults[0][0] > FAULT_WINDOW_S:
            return False
        served = self.served_total - self._faults[0][1]
        return len(self._faults) >= _FAULTY_SHARE * (len(self._faults) + served)

    def eject(self, now: float, reason: str) -> None:
        """Give it no requests until it has produced a token."""
        if self.returned_at is not None and now - self.returned_at > _STEADY_S:
            self._wait_s = FIRST_WAIT_S
        self.is_ejected, self._retry_at = True, now + self._wait_s
        self._wait_s = min(2 * self._wait_s, LONGEST_WAIT_S)
        self._faults.clear()
        self._set_trouble(now, reason)

    def served(self, now: float, count: int) -> None:
        """Note that it has answered `count` requests well."""
        self.served_total += count
        if count > 0:
            self._proven_at, self._token_misses = now, 0

    def produced(self, now: float) -> None:
        """Note that its engine has generated something since it was asked last, such as a part of a long answer."""
        self._proven_at, self._token_misses = now, 0

    def wants_token(self, now: float) -> bool:
        """Whether it is to be asked for a token now."""
        if self.is_ejected:
            return self._answers and now >= self._retry_at
        return self.is_trusted and now - self._proven_at >= IDLE_S

    def stopped(self, now: float, trouble: str) -> None:
        """Note that a worker from which nothing has come for long does not answer to /health either."""
        self.has_stopped = True
        self.probed(now, trouble)

    def made_token(self, now: float, trouble: str, *, is_final: bool = False) -> None:
        """Take the answer to a request for a token; empty if it was good. `is_final`: it need not fail twice."""
        self._proven_at = now
        if not trouble:
            self._token_misses, self.has_stopped = 0, False
            if self.is_ejected:
                self.is_ejected, self.returned_at = False, now
                self._set_trouble(now, "")
        elif self.is_ejected:
            self._retry_at = now + self._wait_s
            self._wait_s = min(2 * self._wait_s, LONGEST_WAIT_S)
            self.trouble = trouble
        else:
            self._token_misses += 1
            self._proven_at = now - IDLE_S + FIRST_WAIT_S  # once more soon
            if is_final or self._token_misses >= _TOKEN_MISSES_TO_EJECT:
                self._token_misses, self.has_stopped = 0, True
                self.eject(now, trouble)

    def _set_trouble(self, now: float, trouble: str) -> None:
        if not trouble:
            self.lost_at, self._was_trusted = None, True
        elif self.lost_at is None:
            self.lost_at = now
        self.trouble = trouble
