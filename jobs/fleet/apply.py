"""Doing what was decided: jobs are submitted and cancelled, workers are told, and the deployment's record follows.

A submission is noted before it is made. Where this process is killed in between, the next one finds the job by its name
and takes it over, or sees that there is none.
"""

import time
from collections.abc import Callable, Mapping
from functools import partial

import msgspec

from ...core.errors import RunStoppedError, SlurminferError, SubmissionUnclearError
from ...core.job import JobRequest, Launcher
from ...core.records import ROUTER, DeploymentRecord, IntendedJob, JobRecord, OrderRecord
from ...core.rundir import RunDirectory
from ...core.spec.deployment import DeploymentSpec
from ..serve.requests import Walltime, name_of, router_request, worker_request
from .look import member_id
from .rules.actions import Cancel, Drain, Submit
from .rules.observed import Member, Stage

# A job whose submission nobody has finished may appear for so long: sbatch may go on after who has started it.
_APPEARS_WITHIN_S = 180.0


class Applier:
    """The actions on one deployment.

    Args:
        deployment: its record, which follows what is done.
        orders: what workers were told, by their ids; follows too.
        may_act: asked before each action and after each submission; False where another controller has taken over.
        clock: Unix seconds.
        unfinished: since when intended jobs have been seen that were not found, by role; follows.
        monotonic: seconds.
    """

    def __init__(
        self,
        run: RunDirectory,
        launcher: Launcher,
        spec: DeploymentSpec,
        deployment: DeploymentRecord,
        orders: dict[str, OrderRecord],
        may_act: Callable[[], bool] = lambda: True,
        clock: Callable[[], float] = time.time,
        unfinished: dict[str, float] | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._unfinished, self._monotonic = {} if unfinished is None else unfinished, monotonic
        self._run, self._launcher, self._spec = run, launcher, spec
        self.deployment, self._orders = deployment, orders
        self._may_act, self._clock = may_act, clock

    def submit(self, action: Submit) -> str:
        """Submit a job; the id of the worker.

        Raises RunStoppedError if the deployment is being stopped, NotInChargeError if another controller has taken
        over (perhaps while the launcher was busy), and whatever the launcher refuses.
        """
        self._require_charge()
        role = ROUTER if action.pool == ROUTER else self._new_worker(action.pool)
        slot = 0 if role == ROUTER else self._free_slot()
        intended = IntendedJob(at=self._clock(), slot=slot, replaces=action.replaces, predicted_s=action.predicted_s)
        self._note(lambda record: _with_intended(record, role, intended))
        try:
            job_id = self._launcher.submit(self._request(role, slot, action))
        except SubmissionUnclearError:
            raise
        except SlurminferError:
            self._require_charge()
            self._note(lambda record: _without_intended(record, role))
            raise
        return self._adopt(role, job_id, intended)

    def take_over_intended(self) -> list[str]:
        """Jobs that were submitted and could not be noted: note them now, or end those that could do nothing.

        Returns words for each.
        """
        said = []
        for role, intended in self.deployment.intended.items():
            self._require_charge()
            request = self._request(role, intended.slot)
            noted = {job.id for job in self.deployment.jobs}
            found = [job for job in self._launcher.find(request) if job not in noted]
            whole = next((job for job in found if self._launcher.is_whole(request, job)), None)
            self._launcher.cancel([job for job in found if job != whole])
            if whole is not None:
                self._adopt(role, whole, intended)
                said.append(f"job {whole} of {role} was submitted by a controller that has ended")
            elif found or not self._may_appear(role):
                self._note(partial(_without_intended, role=role))
        for role in self._unfinished.keys() - self.deployment.intended.keys():
            del self._unfinished[role]
        return said

    def drain(self, action: Drain, member: Member) -> None:
        """Tell a worker to end; one that does not run yet is cancelled too, so that it need not start for that."""
        if member.pool == ROUTER:  # it sees for itself that another one has announced itself
            return
        self._require_charge()
        self._tell(member, OrderRecord(epoch=self._epoch(member), drain=True, reason=action.why))

    def cancel(self, action: Cancel, member: Member) -> None:
        """End a job."""
        self._require_charge()
        if member.pool != ROUTER:
            self._tell(member, OrderRecord(epoch=self._epoch(member), drain=True, reason=action.why))
        self._launcher.cancel([member.job])

    def keep_away(self, members: Mapping[str, Member], epochs: Mapping[str, int]) -> None:
        """Tell workers that have a successor not to come back, and those that have none any more to come back."""
        replaced = {one.replaces: one.id for one in members.values() if one.stage is not Stage.LEAVING}
        for member in members.values():
            order = self._orders.get(member.id)
            if member.pool == ROUTER or (order is not None and order.drain):
                continue
            successor = replaced.get(member.id)
            if (successor is not None) == (order is not None and order.stays_away):
                continue
            self._require_charge()
            reason = f"{successor} takes over" if successor else ""
            epoch = epochs.get(member.id, 0)
            self._tell(member, OrderRecord(epoch=epoch, stays_away=successor is not None, reason=reason))

    def remove(self, jobs: set[str]) -> None:
        """Forget jobs that are over."""
        if jobs:
            self._require_charge()
            self._note(lambda record: _without_jobs(record, jobs))

    def _adopt(self, role: str, job_id: str, intended: IntendedJob) -> str:
        job = JobRecord(
            id=job_id,
            name=name_of(self._run, role),
            role=role,
            slot=intended.slot,
            submitted_at=self._clock(),
            replaces=intended.replaces,
            predicted_s=intended.predicted_s,
        )
        try:
            self._require_charge()
            self._note(lambda record: _without_intended(_with_job(record, job), role))
        except RunStoppedError:  # `stop` does not know of it
            self._launcher.cancel([job_id])
            raise
        except NotInChargeError:
            self._leave(role, job_id)
            raise
        return member_id(job)

    def _leave(self, role: str, job_id: str) -> None:
        """Another controller has taken over meanwhile: end the job, unless that one knows of it or looks for it."""
        record = self._run.read_deployment()
        is_known = record is not None and (role in record.intended or any(job.id == job_id for job in record.jobs))
        if not is_known:
            self._launcher.cancel([job_id])

    def _may_appear(self, role: str) -> bool:
        since = self._unfinished.setdefault(role, self._monotonic())
        return self._monotonic() - since < _APPEARS_WITHIN_S

    def _request(self, role: str, slot: int, action: Submit | None = None) -> JobRequest:
        """The job of a role; without an action only its name and its log folder are meant."""
        if role == ROUTER:
            return router_request(self._spec, self._run)
        walltime = None if action is None else Walltime.of(action.time_s, action.time_min_s)
        return worker_request(self._spec, self._run, role, slot, walltime)

    def _new_worker(self, pool: str) -> str:
        worker_id = f"{pool}-{self._run.read_serials().get(pool, 0)}"
        self._run.take_serials([worker_id])
        return worker_id

    def _free_slot(self) -> int:
        taken = {job.slot for job in self.deployment.jobs if job.role != ROUTER}
        return next(slot for slot in range(len(taken) + 1) if slot not in taken)

    def _tell(self, member: Member, order: OrderRecord) -> None:
        self._run.write_order(member.id, order)
        self._orders[member.id] = order

    def _epoch(self, member: Member) -> int:
        order = self._orders.get(member.id)
        return order.epoch if order is not None else 0

    def _note(self, change: Callable[[DeploymentRecord], DeploymentRecord]) -> None:
        """Change the deployment's record as it is now. Raises RunStoppedError."""
        self._run.claims.require(self.deployment)
        deployment = change(self._run.read_deployment() or self.deployment)
        self._run.claims.update(deployment)
        self.deployment = deployment

    def _require_charge(self) -> None:
        if not self._may_act():
            raise NotInChargeError("another controller has taken over")


class NotInChargeError(SlurminferError):
    """This process may not act for the deployment any more."""


def _with_intended(record: DeploymentRecord, role: str, intended: IntendedJob) -> DeploymentRecord:
    return msgspec.structs.replace(record, intended={**record.intended, role: intended})


def _without_intended(record: DeploymentRecord, role: str) -> DeploymentRecord:
    left = {other: job for other, job in record.intended.items() if other != role}
    return msgspec.structs.replace(record, intended=left)


def _with_job(record: DeploymentRecord, job: JobRecord) -> DeploymentRecord:
    others = (one for one in record.jobs if one.id != job.id)  # one of that id was lost with Slurm's state
    return msgspec.structs.replace(record, jobs=(*others, job))


def _without_jobs(record: DeploymentRecord, jobs: set[str]) -> DeploymentRecord:
    return msgspec.structs.replace(record, jobs=tuple(job for job in record.jobs if job.id not in jobs))
