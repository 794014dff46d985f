"""The records that the parts leave for each other in the run directory, one in each file, with a version."""

from enum import StrEnum
from pathlib import Path
from typing import TypeVar

import msgspec

from . import files
from .errors import RunDirectoryError

VERSION = 2
HEARTBEAT_S = 10.0  # between two writings of a worker's record
SILENCE_S = 60.0  # without one: then the agent counts as silent


class WorkerState(StrEnum):
    """A worker's life: it only moves forward, and starts over with a higher epoch when Slurm requeues its job."""

    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"
    GONE = "gone"


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
    load_s: float | None = None  # from start of the engine to its first real token
    ends_at: float | None = None  # walltime limit of the job
    drain_until: float | None = None  # when a DRAINING worker's engine is ended, whatever is still in flight
    reason: str = ""  # why it is GONE or DRAINING


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

    def __str__(self) -> str:
        return f"node rank {self.node_rank} on {self.host}: {self.reason}"


class RouterRecord(msgspec.Struct, frozen=True, kw_only=True):
    """`router.json`, owned by the router. `url` is None and `reason` set where it could not start."""

    version: int = VERSION
    url: str | None  # http://ADDRESS:PORT for clients, or https://
    fingerprint: str = ""  # SHA-256 of the certificate for clients, hex with colons; empty without HTTPS
    private_url: str | None = None  # https://ADDRESS:PORT for our own commands, guarded by core/net/identity.py
    host: str
    job: str
    pid: int
    epoch: int
    started_at: float
    reason: str = ""


class JobRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One job of a deployment: `id` is Slurm's, or that of core/process_id.py in local mode."""

    id: str
    role: str  # "router" or the worker's id


class DeploymentRecord(msgspec.Struct, frozen=True, kw_only=True):
    """`deployment.json`: claimed by one `serve`, completed with the jobs that it has submitted, removed by `stop`."""

    version: int = VERSION
    launcher: str  # "slurm" or "local"
    claimed_by: str  # "PID on HOST"
    claimed_at: float
    jobs: tuple[JobRecord, ...] = ()


class QueuedJob(msgspec.Struct, frozen=True, kw_only=True):
    """What the scheduler says of a worker's job."""

    state: str  # its own word, such as PENDING
    reason: str = ""  # why it waits, in its own words
    starts_at: float | None = None  # when it expects to start it, Unix time


class QueueRecord(msgspec.Struct, frozen=True, kw_only=True):
    """`queue.json`: what whoever has asked the scheduler last was told of the workers' jobs. For the status page."""

    version: int = VERSION
    written_at: float
    workers: dict[str, QueuedJob]  # by worker's id


Record = TypeVar("Record", WorkerRecord, NodeRecord, RendezvousRecord, RouterRecord, DeploymentRecord, QueueRecord)
_LARGE = (DeploymentRecord, QueueRecord)  # have a line for each of up to 10,000 workers
_MOST_BYTES_OF_JOBS = 16 << 20


def write_record(path: Path, record: Record) -> None:
    """Replace the file by the record. Raises RunDirectoryError."""
    files.write_atomic(path, files.encode_json(record))


def read_record(path: Path, kind: type[Record]) -> Record | None:
    """The record in a file, None if there is no file.

    Raises RunDirectoryError for a file that is no such record, of another version, or not ours to believe.
    """
    text = files.read_private(path, most_bytes=_MOST_BYTES_OF_JOBS if kind in _LARGE else files.MOST_BYTES)
    if text is None:
        return None
    try:
        record = msgspec.convert(files.parse_json(path, text), kind)
    except msgspec.ValidationError as error:
        raise RunDirectoryError(f"{path} is not a {kind.__name__}: {error}") from error
    if record.version != VERSION:
        raise RunDirectoryError(f"{path} has version {record.version}; this slurminfer reads {VERSION}")
    return record
