"""What is known of workers whose jobs still wait: the deployment's jobs, and what the scheduler has said of them."""

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field

from ...core.errors import RunDirectoryError
from ...core.records import QueuedJob, QueueRecord
from ...core.rundir import RunDirectory
from ...core.threads import in_thread

PERIOD_S = 5.0
FRESH_S = 600.0  # for which the scheduler's word counts
PENDING = "PENDING"

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Queue:
    """The workers that the deployment has jobs for."""

    jobs: frozenset[str] = frozenset()  # ids of workers
    written_at: float = 0.0
    said: Mapping[str, QueuedJob] = field(default_factory=dict)  # by worker's id, at that Unix time

    def of(self, worker_id: str, now: float) -> QueuedJob | None:
        """What the scheduler has said of a worker's job within the last ten minutes. `now` is Unix time."""
        return self.said.get(worker_id) if now - self.written_at <= FRESH_S else None


class QueueWatch:
    """Reads the two files again and again. A file that cannot be read changes nothing."""

    def __init__(self, run: RunDirectory) -> None:
        self._run = run
        self._complaint = ""
        self.queue = Queue()

    async def look(self) -> None:
        """Read the files now."""
        try:
            self.queue = await in_thread(lambda: read_queue(self._run))
        except RunDirectoryError as error:
            if str(error) != self._complaint:
                _log.warning("which jobs wait stays as it was: %s", error)
            self._complaint = str(error)
        else:
            self._complaint = ""

    async def watch(self) -> None:
        """Look until cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(PERIOD_S)


def read_queue(run: RunDirectory) -> Queue:
    """What the run directory has of the deployment's jobs. Raises RunDirectoryError."""
    deployment = run.read_deployment()
    jobs = frozenset(job.role for job in deployment.jobs if job.role != "router") if deployment else frozenset()
    said = run.read_queue() or QueueRecord(written_at=0.0, workers={})
    return Queue(jobs, said.written_at, said.workers)
