"""What the launcher says of the jobs of a record."""

from collections.abc import Callable, Mapping, Sequence

from ...core.job import JobStatus, of_name
from ...core.records import JobRecord


def observe_jobs(
    observe: Callable[[Sequence[str]], Mapping[str, JobStatus]], jobs: Sequence[JobRecord]
) -> dict[str, JobStatus]:
    """One status for every job, by id; one whose id is another job's now has ended. Raises what `observe` does."""
    statuses = observe([job.id for job in jobs]) if jobs else {}
    return {job.id: of_name(statuses[job.id], job.name) for job in jobs}
