"""The records that the parts leave for each other in the run directory, one in each file, with a version."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, TypeVar

import msgspec

from . import files
from .errors import DamagedFileError, RunDirectoryError
from .job import JobPhase

VERSION = 2
HEARTBEAT_S = 10.0  # between two writings of a worker's record
SILENCE_S = 60.0  # without one: then the agent counts as silent
CONTROLLER_SILENCE_S = 60.0  # without a new lease or report of the controller: then it counts as gone
ROUTER = "router"  # the role of the router's job
MOST_PINNED = 10_000  # workers of a pool that a user may ask for


class WorkerState(StrEnum):
    """A worker's life: it only moves forward, and starts over with a higher epoch when Slurm requeues its job."""

    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"
    GONE = "gone"


class EnergyRecord(msgspec.Struct, frozen=True, kw_only=True):
    """Energy that a worker's job has drawn since it began, joules, as its agents read it. None: not to be read."""

    cpu_j: float | None = None  # processors and, where they count it, memory: the job's share by its CPUs
    gpu_j: float | None = None  # its GPUs
    is_sampled: bool = False  # gpu_j is a sum over samples of their power, not what they have counted

    def __add__(self, other: "EnergyRecord") -> "EnergyRecord":
        """The sum; what is missing in one is missing in it."""
        return EnergyRecord(
            cpu_j=None if self.cpu_j is None or other.cpu_j is None else self.cpu_j + other.cpu_j,
            gpu_j=None if self.gpu_j is None or other.gpu_j is None else self.gpu_j + other.gpu_j,
            is_sampled=self.is_sampled or other.is_sampled,
        )


class WorkerRecord(msgspec.Struct, frozen=True, kw_only=True):
    """`workers/ID.json`, owned by the worker's agent. Times are Unix seconds."""

    version: int = VERSION
    id: str  # POOL-SERIAL
    pool: str
    engine: str
    model: str
    state: WorkerState
    host: str
    job: str  # Slurm job id, or pid of the agent in local mode
    epoch: int  # rises with every requeue of the job
    pid: int
    updated_at: float
    url: str | None = None  # https://ADDRESS:PORT, where core/net/identity.py guards it; None for local workers
    socket: str | None = None  # path of the engine's Unix socket on `host`
    key: str = ""  # the engine's own API key, drawn by the agent; no client has it
    capacity: int | None = None  # requests that the engine computes at once
    load_s: float | None = None  # from start of the engine, or of staging, to its first real token
    stage_s: float | None = None  # of that, copying weights to the node's disk; None: they are not to be copied
    ends_at: float | None = None  # walltime limit of the job
    drain_until: float | None = None  # when a DRAINING worker's engine is ended, whatever is still in flight
    reason: str = ""  # why it is GONE or DRAINING
    remark: str = ""  # what its user should know although it works, such as a `setup` line that failed
    energy: EnergyRecord | None = None  # of the job on all of its nodes, earlier epochs included


class RendezvousRecord(msgspec.Struct, frozen=True, kw_only=True):
    """`rendezvous/ID.EPOCH`, owned by the worker's head: where and how the ranks of all nodes meet."""

    version: int = VERSION
    address: str  # HOST:PORT on node rank 0
    secret: str  # by which the ranks know each other


class NodeRecord(msgspec.Struct, frozen=True, kw_only=True):
    """`rendezvous/ID.EPOCH.NODE_RANK`, owned by the agent of a further node of a worker."""

    version: int = VERSION
    node_rank: int
    host: str
    pid: int  # of the engine's process there
    rendezvous: str  # HOST:PORT that it was told; the head may have called another meeting since
    updated_at: float
    exit_code: int | None = None  # None while it runs; negative: the signal that killed it
    reason: str = ""  # why it has died; empty while it runs
    energy: EnergyRecord | None = None  # of the job on this node, in this epoch

    def __str__(self) -> str:
        return f"node rank {self.node_rank} on {self.host}: {self.reason}"


class RouterRecord(msgspec.Struct, frozen=True, kw_only=True):
    """`router.json`, owned by the router. `url` is None and `reason` set where it could not start."""

    version: int = VERSION
    url: str | None  # http://ADDRESS:PORT for clients, or https://
    fingerprint: str = ""  # SHA-256 of the certificate that clients know, hex with colons; empty without HTTPS
    private_url: str | None = None  # https://ADDRESS:PORT for our own commands, guarded by core/net/identity.py
    host: str
    job: str
    pid: int
    epoch: int
    started_at: float
    listeners: str = ""  # where a successor on the same host gets its listening sockets: router/control/passing.py
    reason: str = ""


class JobRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One job of a deployment: `id` is Slurm's, or that of core/processes/process_id.py in local mode."""

    id: str
    name: str = ""  # with which it was submitted: Slurm may give the id to another job when it has lost its state
    role: str  # ROUTER or the worker's id
    slot: int = 0  # of a worker: its number among those of the deployment that live at the same time
    submitted_at: float = 0.0  # Unix time
    replaces: str = ""  # of a worker: the id of the one that it takes over from
    # Of a worker of a backfill pool: for so many seconds it was expected to serve when it was submitted.
    predicted_s: float | None = None


class OrderRecord(msgspec.Struct, frozen=True, kw_only=True):
    """`orders/ID.json`, owned by the controller: what a worker is told. Without a file it serves."""

    version: int = VERSION
    epoch: int = 0  # the worker's, when it was told this
    drain: bool = False  # take no more requests, finish those in flight, and end for good
    stays_away: bool = False  # do not serve in a later epoch: another worker takes over at the end of this one
    reason: str = ""


class IntendedJob(msgspec.Struct, frozen=True, kw_only=True):
    """A job that is being submitted. Fields as of JobRecord."""

    at: float  # when that began, Unix time
    slot: int = 0
    replaces: str = ""
    predicted_s: float | None = None


class DeploymentRecord(msgspec.Struct, frozen=True, kw_only=True):
    """`deployment.json`: claimed by one `serve`, completed with the jobs that it has submitted, removed by `stop`."""

    version: int = VERSION
    launcher: str  # "slurm" or "local"
    claimed_by: str  # "PID on HOST"
    claimed_at: float
    jobs: tuple[JobRecord, ...] = ()
    is_complete: bool = False  # serve has submitted all that it was asked for: from now on the controller does
    # By role, jobs that are being submitted: such a job may be there without standing in `jobs`, where whoever has
    # submitted it has died or got no answer.
    intended: dict[str, IntendedJob] = {}


class QueuedJob(msgspec.Struct, frozen=True, kw_only=True):
    """What the scheduler says of a worker's job."""

    phase: JobPhase
    state: str  # its own word, such as PENDING
    reason: str = ""  # why it waits, in its own words
    starts_at: float | None = None  # when it expects to start it, Unix time
    ends_at: float | None = None  # the walltime limit of one that runs, Unix time: it may be changed meanwhile
    obstacle: str = ""  # why it does not start as it is, however long it waits


class QueueRecord(msgspec.Struct, frozen=True, kw_only=True):
    """`queue.json`: what whoever has asked the scheduler last was told of the workers' jobs. For the status page."""

    version: int = VERSION
    written_at: float
    workers: dict[str, QueuedJob]  # by worker's id


class EndedWorker(msgspec.Struct, frozen=True, kw_only=True):
    """A worker whose job is over. Times are Unix seconds."""

    id: str
    pool: str
    job: str
    at: float
    submitted_at: float
    ready_s: float = 0.0  # for so long it was ready
    is_wanted: bool = False  # the controller or a user of slurminfer has ended it
    by_scheduler: bool = False  # preempted, cancelled, or its node was lost
    is_final: bool = False  # another try would end in the same way
    was_cut: bool = False  # of a backfill pool: it ended before its limit, and was not told to
    has_missed: bool = False  # of a backfill pool: its job was to start at once, and never did
    cause: str = ""
    advice: str = ""  # what to change, where that is known


class PoolRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What the controller knows of a pool, and what it does for it."""

    wanted: int | None = None  # workers; None until it has decided
    enough_since: float | None = None  # since when one worker fewer would have been enough
    load_s: tuple[float, ...] = ()  # of the latest workers: from the start of the job to the first token
    wait_s: tuple[float, ...] = ()  # of the latest workers: from submission to the start of the job
    capacity: int | None = None  # requests that its latest ready worker computes at once
    day: str = ""  # the date that `hours` are of
    hours: float = 0.0  # GPU-hours, or node-hours where workers have no GPU
    asked_at: float = 0.0  # what ScaleRecord.asked_at has said last, on the clock of whoever has asked
    retry_asked_at: float = 0.0  # when that was noticed, on the controller's clock: failures before it do not count
    ended: tuple[EndedWorker, ...] = ()  # the latest ones, oldest first
    waits: str = ""  # why it submits no worker although one is missing
    waits_until: float | None = None
    gave_up: bool = False  # it waits until a user changes something
    may_come: bool = False  # a request for it may wait: a worker comes, or would be started for it

    @property
    def is_asleep(self) -> bool:
        """Whether it has no worker because no request needs one."""
        return self.wanted == 0 and self.may_come and not self.gave_up


class DecisionRecord(msgspec.Struct, frozen=True, kw_only=True):
    """Something that the controller has done, in words."""

    at: float
    text: str


class FleetRecord(msgspec.Struct, frozen=True, kw_only=True):
    """`fleet.json`, owned by the controller: what it remembers, and what it tells. Times are Unix seconds."""

    version: int = VERSION
    written_at: float
    pools: dict[str, PoolRecord] = {}
    decisions: tuple[DecisionRecord, ...] = ()  # the latest ones, oldest first
    trouble: str = ""  # why it can do nothing now


class ScaleRecord(msgspec.Struct, frozen=True, kw_only=True):
    """`scale.json`, owned by `slurminfer scale`: numbers of workers that a user has asked for."""

    version: int = VERSION
    pinned: dict[str, Annotated[int, msgspec.Meta(ge=0, le=MOST_PINNED)]] = {}  # by pool; others follow the spec
    asked_at: dict[str, float] = {}  # by pool: when something was asked for it last, Unix time


Record = TypeVar(
    "Record",
    WorkerRecord,
    NodeRecord,
    RendezvousRecord,
    RouterRecord,
    DeploymentRecord,
    QueueRecord,
    OrderRecord,
    FleetRecord,
    ScaleRecord,
)
_LARGE = (DeploymentRecord, QueueRecord, FleetRecord)  # have a line for each of up to 10,000 workers
_MOST_BYTES_OF_JOBS = 16 << 20


def write_record(path: Path, record: Record) -> None:
    """Replace the file by the record. Raises RunDirectoryError."""
    files.write_atomic(path, files.encode_json(record))


def read_record(path: Path, kind: type[Record]) -> Record | None:
    """The record in a file, None if there is no file.

    Raises DamagedFileError for a file that is no such record or not ours to believe, RunDirectoryError for one that
    cannot be read or is of another version.
    """
    text = files.read_private(path, most_bytes=_MOST_BYTES_OF_JOBS if kind in _LARGE else files.MOST_BYTES)
    if text is None:
        return None
    try:
        record = msgspec.convert(files.parse_json(path, text), kind)
    except msgspec.ValidationError as error:
        raise DamagedFileError(f"{path} is not a {kind.__name__}: {error}") from error
    if record.version != VERSION:
        raise RunDirectoryError(f"{path} has version {record.version}; this slurminfer reads {VERSION}")
    return record
