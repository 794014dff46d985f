"""A launcher whose jobs are in the phases that the test says."""

from collections.abc import Sequence

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

    def cancel(self, ids: Sequence[str]) -> None:
        self.cancelled += ids

    def render(self, request: JobRequest) -> str:
        raise NotImplementedError

    def kill(self, ids: Sequence[str]) -> None:
        raise AssertionError("nothing has to be killed")
