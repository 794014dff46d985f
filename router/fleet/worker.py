"""One worker as the supervisor sees it: its record, whether it is trusted, and what its engine says of its load."""

import time
from dataclasses import dataclass, field
from typing import Any

from ...core.records import SILENCE_S, WorkerRecord, WorkerState
from ...core.rundir import RunDirectory
from ..control.messages import WorkerView
from .engine_load import EngineLoad
from .trust import Trust

# Stands in for the capacity that an agent could not learn; only ratios between workers matter.
ASSUMED_CAPACITY = 32
# Other workers go on with what is still in flight so long before the agent ends the engine: they need a moment, and
# the clocks of two nodes differ a little.
_MOVE_MARGIN_S = 4.0
# The same before the walltime limit, for a worker whose signal does not come.
_LIMIT_MARGIN_S = 10.0

Life = tuple[str, str, int, int]


def life_of(record: WorkerRecord) -> Life:
    """What tells one life of a worker from the others."""
    return record.id, record.job, record.epoch, record.pid


@dataclass(eq=False, slots=True)
class Worker:
    """One life of a worker: a requeued one is a new Worker, with a slot of its own."""

    record: WorkerRecord
    slot: int = 0  # its column of the board
    trust: Trust = field(default_factory=lambda: Trust(time.monotonic()))
    load: EngineLoad = field(default_factory=EngineLoad)
    card: dict[str, Any] | None = None  # what it says of its model in /v1/models
    changed_limit: float | None = None  # the walltime limit that the scheduler says now, Unix time
    missing_since: float | None = None  # when its record was first not found, monotonic
    heard_at: float = field(default_factory=time.monotonic)  # when its record changed last
    found_at: float = field(default_factory=time.monotonic)
    healthy_since: float | None = None  # Unix time of its return after its last ejection
    ejections: int = 0
    shown: WorkerView | None = None  # what relays have been told of it last

    @property
    def id(self) -> str:
        """POOL-SERIAL."""
        return self.record.id

    @property
    def life(self) -> Life:
        """What tells this life from the others of the same worker."""
        return life_of(self.record)

    @property
    def healthy(self) -> bool:
        """Whether it is trusted with requests, by its probes and what became of requests."""
        return self.trust.is_trusted

    @property
    def probeable(self) -> bool:
        """Whether the worker's agent says that it is ready and where: what is not is not asked for its health."""
        return self.record.state is WorkerState.READY and self._has_address

    @property
    def is_new(self) -> bool:
        """Whether its agent has just said that it is ready, so that it has not been asked for its health yet."""
        return self.probeable and not self.trust.was_probed

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
    def ends_at(self) -> float | None:
        """Unix time of its walltime limit. Its agent knows the one that its job had when it started."""
        return self.record.ends_at if self.changed_limit is None else self.changed_limit

    @property
    def standing(self) -> str:
        """Its state for people: that of its record, but `unreachable` if its agent is silent and `starting` if new."""
        if self.is_lost:
            return "unreachable"
        return WorkerState.STARTING.value if self.is_new else self.record.state.value

    @property
    def reason(self) -> str:
        """Why it is not chosen; empty if it may be."""
        if self.choosable:
            return ""
        return f"{self._silence}; {self.trouble}" if self._silence else self.trouble

    @property
    def trouble(self) -> str:
        """As `reason`, without how long its agent has been silent, which changes every second."""
        if self.choosable:
            return ""
        if self.record.state is not WorkerState.READY:
            return self.record.reason or self.record.state.value
        return self.trust.trouble if self._has_address else "ready without an address"

    @property
    def move_by(self) -> float | None:
        """Unix time at which other workers are to go on with what is in flight; None where nothing is known."""
        record = self.record
        times = [self.ends_at - _LIMIT_MARGIN_S] if self.ends_at is not None else []
        if record.state is WorkerState.DRAINING and record.drain_until is not None:
            times.append(record.drain_until - _MOVE_MARGIN_S)
        return min(times, default=None)

    def view(self, run: RunDirectory) -> WorkerView:
        """What relays are told of it."""
        record = self.record
        return WorkerView(
            slot=self.slot,
            id=record.id,
            pool=record.pool,
            engine=record.engine,
            model=record.model,
            job=record.job,
            epoch=record.epoch,
            host=record.host,
            url=record.url,
            socket=record.socket,
            identity=str(run.worker_identity_path(record.id, record.epoch)),
            key=record.key,
            capacity=self.capacity,
            state=record.state.value,
            choosable=self.choosable,
            trouble=self.trouble,
            has_stopped=self.trust.has_stopped,
            ends_at=self.ends_at,
            move_by=self.move_by,
            healthy_since=self.healthy_since,
            cache_tokens=self.load.cache_tokens,
            running=self.load.running,
            waiting=self.load.waiting,
        )

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
        return self.life == life_of(record)

    def follows(self, record: WorkerRecord) -> bool:
        """Whether `record` tells of a life before this one: Slurm has requeued the job since it was written."""
        return self.record.job == record.job and self.record.epoch > record.epoch

    def hear(self, record: WorkerRecord) -> None:
        """Take a later record of this life."""
        if record.updated_at != self.record.updated_at:
            self.heard_at = time.monotonic()
        self.record = record
