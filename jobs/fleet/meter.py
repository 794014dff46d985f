"""What each job uses, from one look of the controller to the next, for `slurminfer receipt`."""

import logging
from collections.abc import Mapping, Sequence

from ...core.errors import RunDirectoryError
from ...core.job import JobPhase, JobStatus
from ...core.records import ROUTER, JobRecord, WorkerRecord
from ...core.rundir import RunDirectory
from ...core.spec.deployment import DeploymentSpec
from ..receipt.ledger import Doing, JobUsage, Ledger, advance, is_local, new_usage, take_energy
from .look import Ending, Look
from .rules.observed import Member, Stage

# With thousands of jobs the file has some MB: it is not written at each look.
_WRITE_S = 30.0

_log = logging.getLogger(__name__)


class Meter:
    """Follows the jobs of a deployment, and keeps what they use in its run directory.

    A file that cannot be written never keeps the controller from its work: it is tried again at the next look.
    """

    def __init__(self, run: RunDirectory) -> None:
        self._ledger = Ledger(run)
        self._jobs: dict[str, JobUsage] | None = None  # by job; None: what an earlier controller left is not read yet
        self._ended: list[JobUsage] = []  # not written yet
        self._written_at = 0.0
        self._written: dict[str, Doing] = {}
        self._complaint = ""

    def note(
        self,
        look: Look,
        jobs: Sequence[JobRecord],
        spec: DeploymentSpec,
        now: float,
        records: Mapping[str, WorkerRecord | RunDirectoryError],
        *,
        is_load_known: bool,
    ) -> None:
        """Count the time since the last look.

        Args:
            look: what was found.
            jobs: of the deployment, those that have just ended included.
            spec: says what each job was given.
            now: Unix time.
            records: of workers, by their ids.
            is_load_known: whether the router has said what is in flight.
        """
        usages = self._follow(jobs, spec, now)
        for job in jobs:
            take_energy(usages[job.id], records.get(job.role))
        running = {member.id for member in look.members if member.stage is not Stage.PENDING}
        busy = any(member.in_flight for member in look.members)
        oldest_router = next((member.job for member in look.members if _is_running_router(member)), None)
        for member in look.members:
            usage, status = usages[member.job], look.statuses[member.job]
            if status.phase is JobPhase.UNKNOWN:  # it may be over
                continue
            if member.pool == ROUTER:
                has_predecessor, in_flight = member.job != oldest_router, busy
            else:
                has_predecessor, in_flight = member.replaces in running, member.in_flight > 0
            doing = _doing(member.stage, in_flight=in_flight, is_known=is_load_known)
            _count(usage, doing, status, now, has_predecessor=has_predecessor)
            if member.stage is Stage.READY and usage.ready_at is None:
                usage.ready_at = now
        for ending in look.endings:
            self._ended.append(_ended(usages.pop(ending.job.id), ending, now))
        self._write(usages, now)

    def move_times(self, by: float) -> None:
        """Move the times of the last look by so many seconds, because the clock was set."""
        for usage in (self._jobs or {}).values():
            usage.looked_at += by
        self._written_at += by

    def _follow(self, jobs: Sequence[JobRecord], spec: DeploymentSpec, now: float) -> dict[str, JobUsage]:
        """The usage of each of the jobs; what an earlier controller has left of others is over."""
        if self._jobs is None:
            self._jobs = {}
            noted = {(job.id, job.submitted_at) for job in jobs}
            for usage in self._read():
                if usage.key in noted:
                    usage.looked_at = min(usage.looked_at, now)  # the clock may have been set back meanwhile
                    self._jobs[usage.job] = usage
                else:
                    usage.ended_at = usage.looked_at
                    self._ended.append(usage)
        for job in jobs:
            if job.id not in self._jobs:
                self._jobs[job.id] = new_usage(job, spec)
        return self._jobs

    def _read(self) -> list[JobUsage]:
        try:
            return self._ledger.read_living()
        except RunDirectoryError as error:
            _log.warning("what the jobs have used so far is not counted: %s", error)
            return []

    def _write(self, usages: Mapping[str, JobUsage], now: float) -> None:
        doing = {job: usage.doing for job, usage in usages.items()}
        if not self._ended and doing == self._written and now - self._written_at < _WRITE_S:
            return
        try:
            self._ledger.append(self._ended)
            self._ended.clear()
            self._ledger.write_living(usages.values())
        except RunDirectoryError as error:
            if str(error) != self._complaint:
                _log.warning("what the jobs use is not noted until this ends: %s", error)
            self._complaint = str(error)
            return
        self._written, self._written_at, self._complaint = doing, now, ""


def _count(usage: JobUsage, doing: Doing, status: JobStatus, now: float, *, has_predecessor: bool) -> None:
    """Count the time since the last look, and remember what the job does now."""
    if status.partition:
        usage.partition = status.partition
    was_running = usage.doing is not Doing.PENDING
    if doing is not Doing.PENDING and not was_running:
        _start(usage, doing, status, now)
    else:
        passed = advance(usage, now)
        usage.overlap_s += passed if has_predecessor and was_running else 0.0
    usage.doing = doing


def _start(usage: JobUsage, doing: Doing, status: JobStatus, now: float) -> None:
    """Count the time since the job began to run, which is after the last look."""
    began = _began(usage, status, now)
    usage.started_at = began if usage.started_at is None else usage.started_at
    usage.looked_at = began
    # One that is ready when it is seen first has loaded for a time that nobody knows.
    usage.doing = Doing.LOADING if doing is Doing.LOADING else Doing.UNSEEN
    advance(usage, now)


def _began(usage: JobUsage, status: JobStatus, now: float) -> float:
    known = status.started_at
    if known is None:
        known = usage.submitted_at if is_local(usage.job) else now
    return min(max(known, usage.looked_at), now)


def _ended(usage: JobUsage, ending: Ending, now: float) -> JobUsage:
    """The job with the time until its end."""
    status = ending.status
    is_known = status.phase is not JobPhase.UNKNOWN
    end = min(max(status.ends_at or now, usage.looked_at), now) if is_known else usage.looked_at
    if usage.doing is Doing.PENDING and is_known and status.started_at is not None:
        _start(usage, Doing.UNSEEN, status, end)
    advance(usage, end)
    usage.ended_at = end
    return usage


def _doing(stage: Stage, *, in_flight: bool, is_known: bool) -> Doing:
    if stage is Stage.PENDING:
        return Doing.PENDING
    if stage is Stage.STARTING:
        return Doing.LOADING
    if not is_known:
        return Doing.UNSEEN
    return Doing.SERVING if in_flight else Doing.IDLE


def _is_running_router(member: Member) -> bool:
    return member.pool == ROUTER and member.stage is not Stage.PENDING
