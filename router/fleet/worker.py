"""One worker as the router sees it: its record, whether it answers, and what it is doing for us."""

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from ...core.records import SILENCE_S, WorkerRecord, WorkerState
from ..relay.connection import Connection

# Stands in for the capacity that an agent could not learn; only ratios between workers matter.
ASSUMED_CAPACITY = 32
# A worker that has not answered for so long is taken to have stopped, not to be busy: requests that wait there go to
# another one. It comes on top of the time that a probe may take.
STOPPED_S = 10.0
_NOT_PROBED = "not probed yet"


@dataclass(eq=False, slots=True)
class Worker:
    """One life of a worker: a requeued one is a new Worker, so that old requests end on the old count."""

    record: WorkerRecord
    trouble: str = _NOT_PROBED  # why it is not trusted; empty after a good probe
    in_flight: int = 0
    turn: int = 0  # ordinal of the last request it was chosen for: lower is longer ago
    suspected_at: float = 0.0  # monotonic
    lost_at: float | None = field(default_factory=time.monotonic)  # since when it is not trusted; None while it is
    missing_since: float | None = None  # when its record was first not found, monotonic
    card: dict[str, Any] | None = None  # what it says of its model in /v1/models
    # Requests of which nothing has been sent to the client: what ends their waiting, and whether another worker could
    # take them.
    waiting: dict[asyncio.Timeout, Callable[[], bool]] = field(default_factory=dict)
    connection: Connection | None = None  # None until the first probe
    heard_at: float = field(default_factory=time.monotonic)  # when its record changed last

    @property
    def id(self) -> str:
        """POOL-SERIAL."""
        return self.record.id

    @property
    def life(self) -> tuple[str, str, int, int]:
        """What tells this life from the others of the same worker."""
        return self.record.id, self.record.job, self.record.epoch, self.record.pid

    @property
    def healthy(self) -> bool:
        """Whether the last probe was good and no request has failed at the worker since."""
        return not self.trouble

    @property
    def probeable(self) -> bool:
        """Whether the worker's agent says that it is ready and where: what is not is not asked for its health."""
        return self.record.state is WorkerState.READY and self._has_address

    @property
    def is_new(self) -> bool:
        """Whether its agent has just said that it is ready, so that it has not been asked for its health yet."""
        return self.probeable and self.trouble == _NOT_PROBED

    @property
    def is_lost(self) -> bool:
        """Whether its agent has been silent for a minute, and the worker does not answer either.

        One that answers is not lost: a shared filesystem may stand still.
        """
        return self.record.state is not WorkerState.GONE and bool(self._silence) and not self.choosable

    @property
    def choosable(self) -> bool:
        """Whether the worker may get new requests."""
        return self.probeable and self.healthy

    @property
    def capacity(self) -> int:
        """Requests that the worker computes at once."""
        capacity = self.record.capacity
        return capacity if capacity is not None and capacity > 0 else ASSUMED_CAPACITY

    @property
    def standing(self) -> str:
        """Its state for people: that of its record, but `unreachable` if its agent is silent and `starting` if new."""
        if self.is_lost:
            return "unreachable"
        return WorkerState.STARTING.value if self.is_new else self.record.state.value

    @property
    def load(self) -> float:
        """Requests in flight relative to what it computes at once."""
        return self.in_flight / self.capacity

    @property
    def reason(self) -> str:
        """Why it is not chosen; empty if it may be."""
        if self.choosable:
            return ""
        if self.record.state is not WorkerState.READY:
            return self._silence or self.record.reason or self.record.state.value
        trouble = self.trouble if self._has_address else "ready without an address"
        return f"{self._silence}; {trouble}" if self._silence else trouble

    @property
    def _has_address(self) -> bool:
        return self.record.url is not None or self.record.socket is not None

    @property
    def _silence(self) -> str:
        """How long its agent has been silent, if that is too long."""
        silent_s = time.monotonic() - self.heard_at
        return f"no heartbeat for {silent_s:.0f} s" if silent_s > SILENCE_S else ""

    def lives_as(self, record: WorkerRecord) -> bool:
        """Whether `record` tells of this life and not of a later one."""
        return self.life == (record.id, record.job, record.epoch, record.pid)

    def follows(self, record: WorkerRecord) -> bool:
        """Whether `record` tells of a life before this one: Slurm has requeued the job since it was written."""
        return self.record.job == record.job and self.record.epoch > record.epoch

    def hear(self, record: WorkerRecord) -> None:
        """Take a later record of this life."""
        if record.updated_at != self.record.updated_at:
            self.heard_at = time.monotonic()
        self.record = record

    def probed(self, began: float, trouble: str) -> None:
        """Take the result of a probe. One that began before a request failed says nothing about the time after."""
        if trouble or began > self.suspected_at:
            self._set_trouble(trouble)

    def suspect(self, trouble: str) -> None:
        """A request could not reach it: not chosen again until the next good probe."""
        self.suspected_at = time.monotonic()
        self._set_trouble(trouble)

    def release_waiting(self, now: float) -> None:
        """End the waiting of requests that another worker could take, if this one has stopped."""
        if self.lost_at is None or now - self.lost_at < STOPPED_S:
            return
        for patience in [patience for patience, is_elsewhere in self.waiting.items() if is_elsewhere()]:
            del self.waiting[patience]
            patience.reschedule(0.0)

    def _set_trouble(self, trouble: str) -> None:
        if not trouble:
            self.lost_at = None
        elif self.lost_at is None:
            self.lost_at = time.monotonic()
        self.trouble = trouble

    @contextmanager
    def occupied(self, turn: int) -> Iterator[None]:
        """Count one request in flight."""
        self.turn = turn
        self.in_flight += 1
        try:
            yield
        finally:
            self.in_flight -= 1
