"""What one look at a deployment finds: its state, and those of its workers and pools."""

import msgspec

from ....core.records import DecisionRecord, EndedWorker, WorkerState
from ...receipt.harvest import HarvestLine

SHOWN_ENDED = 5  # workers of a pool that have ended, in a look


class WorkerView(msgspec.Struct, frozen=True, kw_only=True):
    """One worker. `state` is pending, starting, ready, draining, gone, or unreachable.

    Unreachable is a worker that its own record calls ready, and that the router calls unhealthy; where the router does
    not answer, one whose record has not been written for a minute.
    """

    id: str
    job: str
    state: str
    scheduler: str  # the scheduler's word for the job
    node: str = ""
    in_flight: int | None = None
    load_s: float | None = None
    stage_s: float | None = None  # of load_s, copying weights to the node's disk
    seconds_left: float | None = None
    reason: str = ""
    cause: str = ""  # why it has ended, in plain words, where that is known
    advice: str = ""  # what to change: of one that has ended, or that waits
    remark: str = ""  # what you should know although it works, such as a line of `setup` that failed
    obstacle: str = ""  # of a pending one: why it does not start as it is, however long it waits
    starts_at: float | None = None  # of a pending one: when Slurm expects to start it, Unix time


class PoolView(msgspec.Struct, frozen=True, kw_only=True):
    """One pool, as the controller of the fleet tells it."""

    name: str
    wanted: int | None = None  # workers
    waits: str = ""  # why it submits none although one is missing
    waits_until: float | None = None  # Unix time
    gave_up: bool = False  # until `slurminfer scale` or a new `serve`
    is_asleep: bool = False  # it has no worker because no request needs one
    ended: tuple[EndedWorker, ...] = ()  # its latest workers that have ended otherwise than the controller wanted
    is_backfill: bool = False
    harvest: HarvestLine | None = None  # of a backfill pool that has had jobs


class DeploymentView(msgspec.Struct, frozen=True, kw_only=True):
    """One look at a deployment. `state` is stopped, pending, starting, ready, asleep, failed, damaged or unknown.

    Asleep is one that has no workers because no request needs one. Damaged is a deployment whose files cannot be read,
    unknown one whose processes are on another machine.
    """

    name: str
    state: str
    endpoint: str | None = None
    status_page: str | None = None  # for browsers, while the router answers; sglang-router has none
    fingerprint: str = ""  # SHA-256 of the certificate for clients, where the endpoint speaks HTTPS
    router_job: str = ""
    router_scheduler: str = ""
    router_answers: bool = False
    reason: str = ""
    cause: str = ""  # why it has failed, in plain words, where that is known
    advice: str = ""  # what to change, or how to end it
    obstacle: str = ""  # why the router's job does not start as it is, however long it waits
    workers: tuple[WorkerView, ...] = ()
    pools: tuple[PoolView, ...] = ()
    decisions: tuple[DecisionRecord, ...] = ()  # the controller's latest ones, oldest first
    trouble: str = ""  # why the controller can do nothing now

    @property
    def ready_workers(self) -> int:
        """How many workers are ready, and not unhealthy in the router's eyes where the router answers."""
        return sum(worker.state == WorkerState.READY for worker in self.workers)
