"""What the jobs of a deployment have used: `ended-jobs.jsonl`, a line for each that is over, and `living-jobs.json`.

The controller writes both. A line is only ever appended, and the file outlives `stop`. A line that a full disk or a
crash has torn is left out by readers, and the next line begins after it. Where two controllers note the same end, the
first line counts.
"""

import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from pathlib import Path

import msgspec

from ...core import files
from ...core.errors import RunDirectoryError, SpecError, UntrustedFileError
from ...core.locks import Lock, try_lock
from ...core.records import ROUTER, EnergyRecord, JobRecord, WorkerRecord
from ...core.rundir import RunDirectory
from ...core.spec.deployment import DeploymentSpec
from ...core.trust import PRIVATE_FILE, open_trusted
from ...core.workers.ids import pool_name
from ..fleet.together import records_by_role

_VERSION = 1
_MOST_BYTES = 16 << 20  # of the living jobs: 10,000 have some 3 MB
# A job that a controller has seen so recently has run until `stop`. After a longer time nobody knows when it ended.
_RECENT_S = 300.0
# After so long without a look nobody knows whether a ready worker had requests.
SEEN_S = 60.0

_log = logging.getLogger(__name__)


class Doing(StrEnum):
    """What a job was last seen to do."""

    PENDING = "pending"
    LOADING = "loading"  # it runs, and has produced no token yet
    IDLE = "idle"  # it is ready, and has no request in flight
    SERVING = "serving"
    UNSEEN = "unseen"  # it is ready, but the router did not say what it does


class JobUsage(msgspec.Struct, kw_only=True):
    """What one job has used, as the controller has seen it. Times are Unix seconds of the controller's clock.

    `running_s` minus the seconds of loading, idling and serving is time in which nobody looked.
    """

    version: int = _VERSION
    job: str
    role: str
    pool: str  # ROUTER for routers
    partition: str = ""  # empty: not known
    nodes: int = 1
    gpus: int = 0  # on all nodes
    cpus: int = 1  # on all nodes
    submitted_at: float
    started_at: float | None = None  # its first run
    ready_at: float | None = None
    ended_at: float | None = None
    looked_at: float  # when it was seen last
    doing: Doing = Doing.PENDING
    running_s: float = 0.0  # all of its runs
    loading_s: float = 0.0
    idle_s: float = 0.0
    serving_s: float = 0.0
    overlap_s: float = 0.0  # while the job that it takes over from was running too
    predicted_s: float | None = None  # of a backfill pool: for so long it was expected to serve
    energy: EnergyRecord | None = None  # as its agent has told last

    @property
    def key(self) -> tuple[str, float]:
        """What no other job has, even where the scheduler counts its ids from 1 again."""
        return self.job, self.submitted_at


class _Living(msgspec.Struct, kw_only=True):
    version: int = _VERSION
    jobs: tuple[JobUsage, ...] = ()


class Ledger:
    """The two files in a run directory. All methods but `read` raise RunDirectoryError."""

    def __init__(self, run: RunDirectory) -> None:
        self._ended, self._living = run.ended_jobs_path, run.living_jobs_path

    def append(self, jobs: Iterable[JobUsage]) -> None:
        """Note jobs that are over; all of them or none."""
        lines = b"".join(msgspec.json.encode(job) + b"\n" for job in jobs)
        if not lines:
            return
        try:
            _append(self._ended, lines)
        except OSError as error:
            raise RunDirectoryError(f"cannot write {self._ended}: {error.strerror}") from error

    def write_living(self, jobs: Iterable[JobUsage]) -> None:
        """Replace what is known of the jobs that are not over."""
        files.write_atomic(self._living, msgspec.json.encode(_Living(jobs=tuple(jobs))).decode() + "\n")

    def read_living(self) -> list[JobUsage]:
        """The jobs that were not over when the controller looked last; also one that has been noted as over since."""
        text = files.read_private(self._living, most_bytes=_MOST_BYTES)
        if text is None:
            return []
        return list(files.parse_versioned(self._living, text, _Living, _VERSION, what="list of living jobs").jobs)

    def read_ended(self) -> tuple[list[JobUsage], int]:
        """The jobs that are over, each once and in the order of their ends, and how many lines cannot be read."""
        found: dict[tuple[str, float], JobUsage] = {}
        damaged = 0
        try:
            with open_trusted(self._ended) as file:
                for line in file:
                    usage = _parse(line)
                    damaged += usage is None
                    if usage is not None:
                        found.setdefault(usage.key, usage)
        except FileNotFoundError:
            return [], 0
        except UntrustedFileError as error:
            raise RunDirectoryError(str(error)) from error
        except OSError as error:
            raise RunDirectoryError(f"cannot read {self._ended}: {error.strerror}") from error
        return list(found.values()), damaged

    def read(self) -> tuple[list[JobUsage], list[str]]:
        """All jobs, those that are over first, and what is to be said of files that cannot be read as a whole."""
        said: list[str] = []
        living: list[JobUsage] = []
        ended: list[JobUsage] = []
        damaged = 0
        try:
            living = self.read_living()  # first: a job that ends meanwhile is then in both files, not in none
        except RunDirectoryError as error:
            said.append(f"what the living jobs have used is not counted: {error}")
        try:
            ended, damaged = self.read_ended()
        except RunDirectoryError as error:
            said.append(f"jobs that are over are not counted: {error}")
        if damaged:
            said.append(f"{damaged} damaged {'line' if damaged == 1 else 'lines'} of {self._ended}: not counted")
        known = {usage.key for usage in ended}
        return [*ended, *(usage for usage in living if usage.key not in known)], said


def new_usage(job: JobRecord, spec: DeploymentSpec) -> JobUsage:
    """A job of which nothing was seen yet, with what it was to get by the spec. A pool that is gone counts as a CPU."""
    name = ROUTER if job.role == ROUTER else pool_name(job.role)
    usage = JobUsage(
        job=job.id,
        role=job.role,
        pool=name,
        submitted_at=job.submitted_at,
        looked_at=job.submitted_at,
        predicted_s=job.predicted_s,
    )
    if job.role == ROUTER:
        usage.cpus, usage.partition = spec.router.cpus_per_task, spec.router.partition or ""
    for pool in spec.pool:
        if pool.name == name:
            usage.nodes, usage.gpus = pool.nodes, pool.nodes * pool.gpus_per_node
            usage.cpus, usage.partition = pool.nodes * pool.cpus_per_task, pool.partition or ""
    return usage


def is_local(job: str) -> bool:
    """Whether a job's id is that of a process, PID@TICKS-BOOT: there is no queue, and no accounting."""
    return "@" in job


def advance(usage: JobUsage, now: float, seen_s: float = SEEN_S) -> float:
    """Count the time since the last look for what the job did then; how long that is, seconds.

    What a ready worker did is counted where that was at most `seen_s` seconds ago.
    """
    passed = max(0.0, now - usage.looked_at)
    usage.looked_at += passed
    if usage.doing is Doing.PENDING:
        return passed
    usage.running_s += passed
    if usage.doing is Doing.LOADING:
        usage.loading_s += passed
    elif passed <= seen_s and usage.doing is Doing.IDLE:
        usage.idle_s += passed
    elif passed <= seen_s and usage.doing is Doing.SERVING:
        usage.serving_s += passed
    return passed


def close_all(run: RunDirectory, jobs: Sequence[JobRecord], now: float) -> None:
    """Note that all jobs of a deployment have ended. For `stop`, which ends the controller too.

    They ended now, or, if no controller has looked for minutes, when they were seen last.

    Args:
        run: its directory.
        jobs: those that its record named; they are noted even if no controller has ever looked at them.
        now: Unix time.

    What cannot be written is logged: a deployment can be stopped all the same.
    """
    try:
        _close_all(run, jobs, now)
    except (RunDirectoryError, SpecError) as error:
        _log.warning("the receipt will lack the end of the jobs: %s", error)


def _close_all(run: RunDirectory, jobs: Sequence[JobRecord], now: float) -> None:
    ledger = Ledger(run)
    noted = {usage.key for usage in ledger.read_ended()[0]}
    left = {usage.key: usage for usage in ledger.read_living() if usage.key not in noted}
    new = [job for job in jobs if (job.id, job.submitted_at) not in noted | left.keys()]
    if new:
        spec = run.read_spec()
        left |= {(job.id, job.submitted_at): _never_seen(job, spec) for job in new}
    workers = _workers(run)
    for usage in left.values():
        take_energy(usage, workers.get(usage.role))
        if now - usage.looked_at <= _RECENT_S:
            advance(usage, now)
        usage.ended_at = usage.looked_at
    ledger.append(left.values())
    ledger.write_living(())


def take_energy(usage: JobUsage, record: WorkerRecord | RunDirectoryError | None) -> None:
    """Take over what a worker's agent says of the energy of its job."""
    job = usage.job.partition("@")[0]  # a local job's id begins with the pid that records have
    if isinstance(record, WorkerRecord) and record.job == job and record.energy is not None:
        usage.energy = record.energy


def _workers(run: RunDirectory) -> Mapping[str, WorkerRecord | RunDirectoryError]:
    """By role what agents have left; nothing where that cannot be read."""
    try:
        return records_by_role(run.look_at_workers())
    except RunDirectoryError:
        return {}


def _never_seen(job: JobRecord, spec: DeploymentSpec) -> JobUsage:
    usage = new_usage(job, spec)
    if is_local(job.id):  # of a job of Slurm nobody here knows whether it has run; accounting does
        usage.started_at, usage.doing = usage.submitted_at, Doing.UNSEEN
    return usage


def _append(path: Path, lines: bytes) -> None:
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    file = os.open(path, flags, PRIVATE_FILE)
    try:
        if try_lock(file) is Lock.BUSY:
            raise RunDirectoryError(f"cannot write {path}: another process is writing it")
        size = os.fstat(file).st_size
        if size and os.pread(file, 1, size - 1) != b"\n":
            lines = b"\n" + lines
        try:
            written = 0
            while written < len(lines):
                written += os.write(file, lines[written:])
            os.fsync(file)
        except OSError:
            os.ftruncate(file, size)
            raise
    finally:
        os.close(file)


def _parse(line: bytes) -> JobUsage | None:
    try:
        usage = msgspec.json.decode(line, type=JobUsage)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
    return usage if usage.version == _VERSION else None
