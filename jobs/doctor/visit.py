"""One job of the doctor in one partition, and what has become of it."""

from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from ...core.files import read_private
from ...core.job import JobPhase, JobStatus
from ...core.logs.text import root_cause, tail
from ...core.site.doctor import NodeReport, Outcome, Route
from ...core.site.machine import Network
from ...nodes.doctor import meeting
from ...nodes.doctor.beacon import Knock

_ANSWER_S = 180.0  # from a job's start to its reports: modules, Python from a slow filesystem, the nodes' meeting
_LATE_S = 30.0  # NFS shows a new file late, so reports may appear after the end of their job


@dataclass
class Visit:
    """A job that was submitted. Times are Unix seconds, by this machine's clock."""

    partition: str
    job: str
    folder: Path
    tasks: int
    submitted_at: float
    started_at: float | None = None  # when it was first seen running
    ended_at: float | None = None  # when it was first seen ended
    waits_for: str = ""  # Slurm's reason why it does not run
    outcome: Outcome | None = None  # None: it goes on
    reason: str = ""  # why nothing was seen
    reports: dict[int, meeting.TaskReport] = field(default_factory=dict)
    routes: dict[int, list[tuple[Route, Knock]]] = field(default_factory=dict)  # from here to a task's node

    @property
    def waited_s(self) -> float | None:
        """From the submission to the start."""
        return None if self.started_at is None else max(self.started_at - self.submitted_at, 0.0)

    def read(self, here: Network) -> None:
        """Reach the nodes that listen, and read the reports that are there. Raises RunDirectoryError."""
        for rank in range(self.tasks):
            if rank not in self.routes and (target := meeting.read_listening(self.folder, rank)):
                secret = read_private(self.folder / meeting.SECRET) or ""
                self.routes[rank] = meeting.reach(here.host, here, target, rank, secret)
            if rank not in self.reports and (report := meeting.read_report(self.folder, rank)):
                self.reports[rank] = report

    def note(self, status: JobStatus, now: float) -> None:
        """Keep what Slurm says of the job."""
        if status.phase is JobPhase.PENDING:
            self.waits_for = status.reason
        elif status.phase is not JobPhase.UNKNOWN:
            self.started_at = self.started_at or now
        if status.phase in (JobPhase.DONE, JobPhase.FAILED):
            self.ended_at = self.ended_at or now

    def judge(self, status: JobStatus | None, now: float, patience_s: float) -> None:
        """Set the outcome if the visit is over; the status is None while Slurm does not answer."""
        if len(self.reports) == self.tasks:
            self.started_at = self.started_at or now
            self.outcome = "seen"
        elif status is not None and status.obstacle:
            self._give_up("waited", f"its job cannot start: {status.obstacle} (Slurm: {status.reason})")
        elif self.ended_at is not None:
            if now - self.ended_at >= _LATE_S or not self._has_begun():
                state = status.state if status else "ended"
                self._give_up("failed", f"its job ended as {state}: {self._cause()}")
        elif self.started_at is None:
            if now - self.submitted_at > patience_s:
                why = f"Slurm's reason: {self.waits_for}" if self.waits_for else "Slurm gives no reason"
                self._give_up("waited", f"its job did not start within {patience_s:.0f} s; {why}")
        elif now - self.started_at > _ANSWER_S:
            what = f"{len(self.reports)} of {self.tasks} nodes answered within {_ANSWER_S:.0f} s"
            self._give_up("failed", f"its job ran, but {what}: {self._cause()}")

    def node_reports(self) -> tuple[NodeReport, ...]:
        """What the tasks have seen, with how their clocks differ from ours."""
        return tuple(self._with_clock(rank) for rank in sorted(self.reports))

    def all_routes(self) -> tuple[Route, ...]:
        """From here to the nodes, and between them."""
        here = [route for rank in sorted(self.routes) for route, _ in self.routes[rank]]
        return (*here, *(route for rank in sorted(self.reports) for route in self.reports[rank].routes))

    def _give_up(self, outcome: Outcome, reason: str) -> None:
        self.outcome, self.reason = outcome, reason

    def _has_begun(self) -> bool:
        """Whether a task has left a trace, so that its report may still appear."""
        return bool(self.routes or self.reports)

    def _with_clock(self, rank: int) -> NodeReport:
        """The report, with the clock as the fastest connection shows it."""
        node = self.reports[rank].node
        knocks = [found for _, found in self.routes.get(rank, []) if found.clock_error_s is not None]
        best = min(knocks, key=lambda found: found.clock_error_s or 0.0, default=None)
        if best is None:
            return node
        return msgspec.structs.replace(node, clock_offset_s=best.clock_offset_s, clock_error_s=best.clock_error_s)

    def _cause(self) -> str:
        """What the logs of its tasks say."""
        logs = sorted(self.folder.glob(f"{self.job}_*_log.out"))
        if not logs:
            return f"it left no log in {self.folder}, as where the nodes do not see this folder, or may not write there"
        return root_cause("\n".join(map(tail, logs))) or f"its logs in {self.folder} say nothing"
