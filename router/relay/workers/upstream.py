"""One life of a worker as this relay sees it."""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Protocol

from ...control.messages import WorkerView
from ...http.messages import Pool
from ...policies.estimates import USUAL_DECODE_RATE, USUAL_PREFILL_RATE
from .silence import Silence, Waiting

# A request to a worker that is not trusted goes to another one when nothing has come for so long, beside the time that
# a probe has taken.
STOPPED_S = 10.0
# An answer that has begun there, and that no other worker can go on with, breaks off when nothing has come for so long.
HOPELESS_S = 120.0
# A suspect is not chosen for so long, unless the supervisor says more: the time doubles with each fault after which no
# request has succeeded.
_FIRST_SUSPICION_S, _LONGEST_SUSPICION_S = 2.0, 60.0
_RAMP_S = 30.0
_LEAST_RAMP = 0.1


class Row(Protocol):
    """This relay's row of the board."""

    def add(self, slot: int, requests: int = 0, tokens: int = 0) -> None:
        """Change the counts of a worker."""

    def suspect(self, slot: int, by: int) -> None:
        """Change the number of requests that are tried alone there."""


class Counts(Protocol):
    """The board: sums over all relays."""

    def in_flight(self, slot: int) -> int:
        """Requests sent to a worker and not answered yet."""

    def pending_tokens(self, slot: int) -> int:
        """Prompt tokens of those of which no byte of an answer has come."""

    def suspects(self, slot: int) -> int:
        """Requests that are tried alone there."""


class InFlight(Waiting, Protocol):
    """A request at a worker."""

    began: bool  # the first byte of a body has come

    def give_up(self, kind: str, reason: str) -> None:
        """End it if its request can go on elsewhere."""

    def stop(self, kind: str, reason: str) -> None:
        """End it."""


class Upstream:
    """A worker for policies and attempts. A requeued worker is a new Upstream.

    Args:
        clock: seconds, monotonic.
    """

    __slots__ = (
        "_clock", "_counts", "_leaving", "_row", "_suspected_until", "_suspicion_s", "answers_known", "attempts",
        "cache_tokens", "capacity", "choosable", "chosen_last", "connections", "decode_rate", "ends_at", "engine",
        "header", "id", "in_flight", "is_retired", "is_trusted", "key", "loop", "lost_at", "model", "on_lost",
        "patience", "pending_tokens", "pool", "prefill_rate", "ready_at", "refusals", "served", "share", "silence",
        "slot", "turn", "usable_capacity", "view",
    )  # fmt: skip

    def __init__(
        self, view: WorkerView, pool: Pool, counts: Counts, row: Row, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.connections = pool
        self.loop = asyncio.get_running_loop()
        self.attempts: set[InFlight] = set()
        self._leaving = deque[tuple[InFlight, str, str]]()  # that are to go elsewhere, and why
        self.turn = 0
        self.lost_at: float | None = None  # since when it is not trusted; None while it is
        self.on_lost: Callable[[], None] | None = None  # called when it is trusted no more
        self.choosable = False  # whether it may get new requests; set by Workers
        self.is_trusted = False  # choosable for the supervisor, and no suspect
        self.prefill_rate, self.decode_rate = USUAL_PREFILL_RATE, USUAL_DECODE_RATE
        self.in_flight = 0  # requests of all relays that were sent to it and not answered yet
        self.pending_tokens = 0  # prompt tokens of those of which no byte of an answer has come yet
        self._counts, self._row, self._clock = counts, row, clock
        self.served = 0  # requests that it has answered well
        self._suspected_until: float | None = None
        self._suspicion_s = _FIRST_SUSPICION_S
        self.silence = Silence(clock())
        # Of refusals.py: in a row, how many are a reason for doubt, good answers of all workers at its last one.
        self.refusals, self.patience, self.answers_known = 0, 1, 0
        self.chosen_last: float | None = None  # when it could be chosen last
        self.ready_at: float | None = None  # since when its agent calls it ready
        self.is_retired = False
        self.share = 1.0  # of its capacity that it may use: less while it comes back after an ejection
        self.usable_capacity = 1.0  # for policies: little also while it is silent
        self.hear(view)

    def hear(self, view: WorkerView) -> None:
        """Take what the supervisor says of it now."""
        self.view = view
        self.id, self.slot, self.pool, self.model = view.id, view.slot, view.pool, view.model
        self.engine, self.key = view.engine, view.key
        self.header = (b"x-slurminfer-worker", view.id.encode())  # of its answers
        self.capacity, self.ends_at, self.cache_tokens = view.capacity, view.ends_at, view.cache_tokens
        self._set_ramp(time.time())
        if self.ready_at is None and view.state == "ready":
            self.ready_at = self._clock()
        if not view.choosable:
            self._suspected_until = None  # the supervisor has taken over
        self._decide(self._clock())
        if view.has_stopped and self.lost_at is not None:
            self._let_go(self._clock(), 0.0)

    @property
    def suspects(self) -> int:
        """Requests that are tried alone there, of all relays; blame.py."""
        return self._counts.suspects(self.slot)

    def is_ending(self, now: float) -> bool:
        """Whether it was known before that it would end. `now`: Unix time."""
        return self.view.state == "draining" or (self.ends_at is not None and now >= self.ends_at)

    def suspected(self, by: int) -> None:
        """Change that number."""
        self._row.suspect(self.slot, by)

    @property
    def life(self) -> tuple[str, str, int, int]:
        """What tells this life from the others of the same worker."""
        return self.view.id, self.view.job, self.view.epoch, self.slot

    def is_life_of(self, view: WorkerView) -> bool:
        """Whether `view` tells of this life of the worker, not of another one."""
        return (view.id, view.job, view.epoch) == self.life[:3]

    def count(self) -> None:
        """Take what the other relays have in flight from the board; what this one does is counted at once."""
        self.in_flight = self._counts.in_flight(self.slot)
        self.pending_tokens = self._counts.pending_tokens(self.slot)

    def may_come(self, was_tried: bool) -> bool:
        """Whether it, or another life of it, may get requests later that it cannot get now."""
        has_ended = self.view.state == "gone" and self.view.trouble not in ("", "gone")  # and its agent said why
        return self.lost_at is not None and not has_ended and not (was_tried and self.view.state == "starting")

    def suspect(self) -> None:
        """Note that a request has failed there: it is not chosen for a while, unless it is trusted again before."""
        now = self._clock()
        if self._suspected_until is None:
            self._suspected_until = now + self._suspicion_s
            self._suspicion_s = min(2 * self._suspicion_s, _LONGEST_SUSPICION_S)
        self._decide(now)

    def trust(self) -> None:
        """Note that a suspect has answered a question for its health. That helps only after a first fault."""
        if self._suspicion_s <= 2 * _FIRST_SUSPICION_S:
            self._suspected_until = None
            self._decide(self._clock())

    def answered(self) -> None:
        """Note a request that it has answered well."""
        self.served += 1
        self._suspicion_s = _FIRST_SUSPICION_S

    def retire(self) -> None:
        """Note that the supervisor knows it no longer: it gets no more requests, and goes when it has none."""
        self.is_retired = True
        self._decide(self._clock())
        self.connections.close()

    def entered(self, attempt: InFlight, tokens: int) -> None:
        """Count a request whose prompt has so many tokens."""
        self.attempts.add(attempt)
        self._add(1, tokens)

    def answering(self, tokens: int) -> None:
        """Note that the first byte of an answer has come: its prompt has been computed."""
        self._add(0, -tokens)

    def left(self, attempt: InFlight, tokens: int) -> None:
        """Count a request no longer. `tokens`: of the prompt, if no byte has come."""
        self.attempts.discard(attempt)
        self._add(-1, -tokens)

    def _add(self, requests: int, tokens: int) -> None:
        self.in_flight += requests
        self.pending_tokens += tokens
        self._row.add(self.slot, requests, tokens)

    def tick(self, now: float) -> str:
        """Let the requests of a worker that has stopped, or that must end now, go elsewhere. `now`: Unix time.

        Returns why the supervisor should ask the worker for a token; mostly empty.
        """
        clock = self._clock()
        silent_s = self.silence.listen(self.attempts, clock)
        is_new = self.silence.is_new(silent_s, self.pending_tokens / self.prefill_rate)
        self._set_ramp(now)
        if self._suspected_until is not None and clock > self._suspected_until:
            self._suspected_until = None
            self._decide(clock)
        if self.view.move_by is not None and now >= self.view.move_by:
            self._give_up(self.attempts, "moved", "the worker must end")
        if self.lost_at is not None:
            self._let_go(clock, clock - self.lost_at)
            return ""
        return f"nothing has come for {silent_s:.0f} s" if is_new else ""

    def _let_go(self, now: float, lost_s: float) -> None:
        """Let requests go elsewhere that wait in vain."""
        reason = f"the worker has stopped: {self.view.trouble or 'no answer'}"
        vain = []
        for attempt in list(self.attempts):
            waits_at_stopped = self.view.has_stopped and not attempt.began
            silent_s = min(now - attempt.heard_at, lost_s)
            if attempt.began and silent_s >= HOPELESS_S:
                attempt.stop("stopped", reason)
            elif waits_at_stopped or silent_s >= STOPPED_S:
                vain.append(attempt)
        self._give_up(vain, "stopped", reason)

    def _give_up(self, attempts: Iterable[InFlight], kind: str, reason: str) -> None:
        """Let requests go elsewhere that can, one after the other.

        Whether one can is read in what its stream has said, which takes 60 ms for 8,000 tokens: others are to go on in
        between. Those that wait for their turn already are enough; the next tick brings the others.
        """
        if not self._leaving:
            self._leaving += ((attempt, kind, reason) for attempt in attempts)
            self._give_up_next()

    def _give_up_next(self) -> None:
        if self._leaving:
            attempt, kind, reason = self._leaving.popleft()
            attempt.give_up(kind, reason)
        if self._leaving:
            self.loop.call_soon(self._give_up_next)

    def _set_ramp(self, now: float) -> None:
        since = self.view.healthy_since
        if since is None or since > now:  # it was never ejected, or a clock was set back
            self.share = 1.0
        else:
            self.share = min(1.0, max(_LEAST_RAMP, (now - since) / _RAMP_S))
        ramp = _LEAST_RAMP if self.silence.is_long else self.share
        self.usable_capacity = max(1.0, self.capacity * ramp)

    def _decide(self, now: float) -> None:
        suspected = self._suspected_until is not None
        self.is_trusted = self.view.choosable and not suspected and not self.is_retired
        self.choosable &= self.is_trusted
        lost = suspected or self.is_retired or not (self.view.choosable or self.view.state == "draining")
        if not lost:
            self.lost_at = None
        elif self.lost_at is None:
            self.lost_at = now
            if self.on_lost is not None:
                self.on_lost()
