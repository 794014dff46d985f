"""A launcher whose jobs are in the phases that the test says."""

from collections.abc import Callable, Sequence
from typing import Any

from slurminfer.core.errors import SlurmError, SlurminferError
from slurminfer.core.job import JobPhase, JobRequest, JobStatus


class FakeLauncher:
    """Shows one phase at each look, and the last one from then on; an exception is raised instead."""

    name = "slurm"

    def __init__(self, *looks: JobPhase | type[BaseException]) -> None:
        self.looks = list(looks)
        self.submitted: list[JobRequest] = []
        self.cancelled: list[str] = []

    def check(self, request: JobRequest) -> None:
        """Everything can run."""

    def submit(self, request: JobRequest) -> str:
        """The ids are "1", "2" and so on."""
        request.log_folder.mkdir(parents=True, exist_ok=True)
        self.submitted.append(request)
        return str(len(self.submitted))

    def observe(self, ids: Sequence[str]) -> dict[str, JobStatus]:
        look = self.looks.pop(0) if len(self.looks) > 1 else self.looks[0]
        if not isinstance(look, JobPhase):
            raise look
        return {job: JobStatus(id=job, phase=look, state=look.value.upper(), reason="because") for job in ids}

    def find(self, request: JobRequest) -> list[str]:
        raise NotImplementedError

    def is_whole(self, request: JobRequest, job_id: str) -> bool:
        return True

    def cancel(self, ids: Sequence[str]) -> None:
        self.cancelled += ids

    def render(self, request: JobRequest) -> str:
        raise NotImplementedError

    def kill(self, ids: Sequence[str]) -> None:
        raise AssertionError("nothing has to be killed")


class JobTable:
    """A launcher whose jobs are in the phases that the test sets, each for itself; new ones are pending."""

    name = "slurm"

    def __init__(self) -> None:
        self.jobs: dict[str, JobStatus] = {}  # by id
        self.requests: dict[str, JobRequest | None] = {}  # by id; None: not made by this launcher
        self.cancelled: list[str] = []
        self.refusal: SlurminferError | None = None  # of the next submissions
        self.dies: type[BaseException] | None = None  # raised once, after the next submission was made
        self.is_away = False
        self.halves: set[str] = set()  # jobs that lack files, since whoever submitted them died too soon
        self.while_submitting: Callable[[], None] = lambda: None

    def set(self, job: str, phase: JobPhase, state: str = "", **fields: Any) -> None:
        """Put a job into a phase."""
        self.jobs[job] = JobStatus(id=job, phase=phase, state=state or phase.value.upper(), **fields)

    def check(self, request: JobRequest) -> None:
        """Everything can run."""

    def submit(self, request: JobRequest) -> str:
        """The ids are "1", "2" and so on."""
        self.while_submitting()
        if self.refusal is not None:
            raise self.refusal
        job = str(len(self.requests) + 1)
        self.requests[job] = request
        self.set(job, JobPhase.PENDING)
        if self.dies is not None:
            dies, self.dies = self.dies, None
            raise dies
        return job

    def observe(self, ids: Sequence[str]) -> dict[str, JobStatus]:
        if self.is_away:
            raise SlurmError("squeue: no answer")
        unknown = {job: JobStatus(id=job, phase=JobPhase.UNKNOWN, state="UNKNOWN") for job in ids}
        return {job: self.jobs.get(job, unknown[job]) for job in ids}

    def find(self, request: JobRequest) -> list[str]:
        return [job for job, asked in self.requests.items() if asked and asked.name == request.name]

    def is_whole(self, request: JobRequest, job_id: str) -> bool:
        return job_id not in self.halves

    def cancel(self, ids: Sequence[str]) -> None:
        self.cancelled += ids

    def render(self, request: JobRequest) -> str:
        raise NotImplementedError

    def kill(self, ids: Sequence[str]) -> None:
        raise AssertionError("nothing has to be killed")


class ObedientJobTable(JobTable):
    """Its jobs end as soon as they are cancelled."""

    def cancel(self, ids: Sequence[str]) -> None:
        super().cancel(ids)
        for job in ids:
            self.set(job, JobPhase.FAILED, "CANCELLED")
