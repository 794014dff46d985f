"""What is known of workers whose jobs still wait: the deployment's jobs, and what the scheduler has said of them."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from ...core.records import ROUTER, QueuedJob, QueueRecord
from ...core.rundir import RunDirectory
from ...core.workers.ids import role_of

FRESH_S = 600.0  # for which the scheduler's word counts


@dataclass(frozen=True)
class Queue:
    """The workers that the deployment has jobs for."""

    jobs: frozenset[str] = frozenset()  # their roles: ids of workers that do not share one
    written_at: float = 0.0
    said: Mapping[str, QueuedJob] = field(default_factory=dict)  # by role, at that Unix time

    def of(self, worker_id: str, now: float) -> QueuedJob | None:
        """What the scheduler has said of a worker's job within the last ten minutes, or that it has ended.

        `now` is Unix time.
        """
        said = self.said.get(role_of(worker_id))
        is_valid = said is not None and (now - self.written_at <= FRESH_S or not said.phase.is_living)
        return said if is_valid else None


def read_queue(run: RunDirectory) -> Queue:
    """What the run directory has of the deployment's jobs. Raises RunDirectoryError."""
    deployment = run.read_deployment()
    jobs = frozenset(job.role for job in deployment.jobs if job.role != ROUTER) if deployment else frozenset()
    said = run.read_queue() or QueueRecord(written_at=0.0, workers={})
    return Queue(jobs, said.written_at, said.workers)
