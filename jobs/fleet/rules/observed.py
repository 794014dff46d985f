"""What a controller sees in one look: jobs, workers, load, and what it remembers of those that have ended.

All times are Unix seconds of one clock, that of the controller; what other clocks say is turned into it before.
"""

from collections.abc import Mapping
from enum import StrEnum

import msgspec


class Stage(StrEnum):
    """Where a worker is on its way."""

    PENDING = "pending"  # its job waits in the scheduler's queue
    STARTING = "starting"  # its job runs, and its engine has produced no token yet
    READY = "ready"
    RETURNING = "returning"  # its job is being ended by the scheduler, and may go back to the queue
    LEAVING = "leaving"  # it was told to end, or has a successor when it ends


class Member(msgspec.Struct, frozen=True, kw_only=True):
    """One worker whose job lives, as far as the scheduler says."""

    id: str
    pool: str
    job: str
    slot: int
    stage: Stage
    since: float  # when this stage began, or was first seen
    submitted_at: float
    ends_at: float | None = None  # walltime limit of the job that runs
    limit_s: float | None = None  # walltime limit of the job, in seconds
    obstacle: str = ""  # of a pending one: why it never starts as it is
    replaces: str = ""  # id of the worker whose successor it is
    capacity: int = 1  # requests that it computes at once
    in_flight: int = 0
    silent_since: float | None = None  # since when its agent has not written its record
    hung_since: float | None = None  # since when it has produced no token, although it says that it is well


class Ended(msgspec.Struct, frozen=True, kw_only=True):
    """One worker whose job is over."""

    id: str
    pool: str
    at: float
    submitted_at: float
    ready_s: float = 0.0  # for so long it was ready
    is_wanted: bool = False  # the controller or a user has ended it
    by_scheduler: bool = False  # preempted, cancelled, or its node was lost: no fault of its own
    is_final: bool = False  # another try would end in the same way
    was_cut: bool = False  # of a backfill pool: it ended before its limit, and was not told to
    has_missed: bool = False  # its job was to start at once, and never did
    cause: str = ""


class Demand(msgspec.Struct, frozen=True, kw_only=True):
    """Load of a pool's models, as the router tells it."""

    in_flight: int = 0
    waiting: int = 0
    waited_s: float = 0.0  # for so long the oldest of these has waited
    idle_s: float = 0.0  # since the last request


class Reserved(msgspec.Struct, frozen=True, kw_only=True):
    """A time for which reservations take away nodes that the jobs of a pool need, in Unix seconds."""

    starts_at: float
    ends_at: float | None = None  # None: nobody knows


class Past(msgspec.Struct, frozen=True, kw_only=True):
    """What is remembered of a pool."""

    wanted: int | None = None  # the number of workers decided last; None: none was yet
    enough_since: float | None = None  # since when one worker fewer would have been enough
    load_s: float | None = None  # from the start of a job to its first token: nearly the longest of the latest ones
    wait_s: float = 0.0  # the same from submission to the start of the job
    capacity: int | None = None  # requests that its latest worker could compute at once; None: none has told it yet
    hours_today: float = 0.0  # used since midnight, those of `PoolPlan.units`
    day_ends_at: float | None = None  # the next midnight
    retry_asked_at: float = 0.0  # failures before this time do not count: a user has asked for another try
    ended: tuple[Ended, ...] = ()  # the latest ones, oldest first


class Start(msgspec.Struct, frozen=True, kw_only=True):
    """When the scheduler would start one more job of a pool that has this walltime limit."""

    time_s: float
    wait_s: float | None = None  # from the forecast on; None: the scheduler would refuse the job
    reason: str = ""  # the scheduler's words where it would refuse it
    room: int | None = None  # so many such jobs could start now, by the idle nodes; None: nobody knows


class PoolForecast(msgspec.Struct, frozen=True, kw_only=True):
    """What the scheduler says of one more job of a pool, for each walltime limit that it may have, longest first."""

    asked_at: float
    starts: tuple[Start, ...]


class Observed(msgspec.Struct, frozen=True, kw_only=True):
    """One look at everything. None stands for what could not be read, of which nothing is concluded."""

    members: tuple[Member, ...] | None
    demand: Mapping[str, Demand] | None = None  # by pool
    past: Mapping[str, Past] = {}  # by pool
    reserved: Mapping[str, Reserved] = {}  # by pool: when reservations next take the nodes away
    forecasts: Mapping[str, PoolForecast] = {}  # by pool; none where nobody has asked, or nobody could answer
