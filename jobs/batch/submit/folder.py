"""What a batch's ledger keeps of the jobs that work on it: `OUTPUT.ledger/jobs/`, for its owner alone."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from ....core import files
from ....core.errors import BatchError, RunDirectoryError
from ....core.locks import Lock, try_lock
from ....core.records import JobRecord
from ....core.trust import PRIVATE_FILE
from ..batch import Batch, decode_batch, encode_batch, ledger_of
from ..endpoints.served import OwnDeployments
from ..ledger.folder import require_same

_VERSION = 1
_OF_JOBS, _LATEST = "batch.json", "latest.json"  # a batch as its user has described it
_MOST_BYTES = 64 << 20  # templates and schemas are in it


class DriverJobs(msgspec.Struct, frozen=True, kw_only=True):
    """`submitted.json`: the jobs of the latest `--submit`."""

    version: int = _VERSION
    id: str  # of the job, or of the array
    name: str
    drivers: int = 1
    submitted_at: float  # Unix time

    @property
    def ids(self) -> tuple[str, ...]:
        """One for each driver."""
        return (self.id,) if self.drivers == 1 else tuple(f"{self.id}_{number}" for number in range(self.drivers))

    @property
    def jobs(self) -> tuple[JobRecord, ...]:
        """The same with what else is known of them."""
        return tuple(JobRecord(id=id, name=self.name, role="driver", submitted_at=self.submitted_at) for id in self.ids)


class JobsFolder:
    """The folder of one output. All methods raise RunDirectoryError.

    Args:
        output: the batch's output.
    """

    def __init__(self, output: Path) -> None:
        self.output = output.absolute()
        self.path = ledger_of(output) / "jobs"
        self.deployments = OwnDeployments(self.path / "deployments")

    @property
    def ledger(self) -> Path:
        """The folder around it."""
        return self.path.parent

    def require(self) -> None:
        """Raise BatchError where the output has no ledger."""
        if not self.ledger.is_dir():
            raise BatchError(f"{self.ledger} is not there: no batch has written this output")

    def make(self) -> None:
        """Make the folder, for its owner alone; the ledger around it as the user's umask says."""
        try:
            self.ledger.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise BatchError(f"cannot make {self.ledger}: {error.strerror}") from error
        files.make_directory(self.path)

    @contextmanager
    def one_at_a_time(self) -> Iterator[None]:
        """Keep other commands from submitting for this output. Raises BatchError where one does so now."""
        self.make()
        path = self.path / "lock"
        try:
            held = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, PRIVATE_FILE)
        except OSError as error:
            raise RunDirectoryError(f"cannot open {path}: {error.strerror}") from error
        try:
            if try_lock(held) is Lock.BUSY:
                raise BatchError(f"another command is submitting a driver for {self.ledger} at this moment")
            yield
        finally:
            os.close(held)

    def read_jobs(self) -> DriverJobs | None:
        """The jobs that were submitted last; None: there were none."""
        path = self.path / "submitted.json"
        text = files.read_private(path)
        return None if text is None else files.parse_versioned(path, text, DriverJobs, _VERSION, what="list of jobs")

    def write_jobs(self, jobs: DriverJobs) -> None:
        """Keep them."""
        files.write_atomic(self.path / "submitted.json", files.encode_json(jobs))

    @property
    def was_submitted(self) -> bool:
        """Whether a driver was ever submitted, or was about to be."""
        return (self.path / _OF_JOBS).exists()

    def read_batch(self) -> Batch:
        """What the jobs are to do. Raises BatchError where nothing was submitted."""
        return self._read(_OF_JOBS, "nothing was submitted")

    def read_latest(self) -> Batch:
        """What a driver has been asked to do last, as a job or at a terminal. Raises BatchError where none has been."""
        return self._read(_LATEST, "no driver has begun")

    def write_batch(self, batch: Batch, *, of_jobs: bool) -> None:
        """Keep what a driver is asked to do; `of_jobs`: by those that are submitted.

        Raises BatchError, and keeps what was asked before, where the ledger has results of other parameters.
        """
        require_same(self.ledger, batch.parameters)
        self.make()
        for name in (_LATEST, _OF_JOBS) if of_jobs else (_LATEST,):
            files.write_atomic(self.path / name, encode_batch(batch))

    def _read(self, name: str, why_not: str) -> Batch:
        path = self.path / name
        text = files.read_private(path, most_bytes=_MOST_BYTES)
        if text is None:
            raise BatchError(f"{path} is not there: {why_not}")
        return decode_batch(path, text)
