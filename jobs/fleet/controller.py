"""The controller: looks, decides and acts, again and again, until the deployment is stopped.

It can be killed at any time. What it needs to know again stands in the run directory; docs/develop/fleet.md.
"""

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import msgspec

from ...core.errors import RunDirectoryError, RunStoppedError, SlurmError, SlurminferError, SpecError
from ...core.job import Launcher
from ...core.records import (
    CONTROLLER_SILENCE_S,
    ROUTER,
    DeploymentRecord,
    OrderRecord,
    RouterRecord,
    ScaleRecord,
    WorkerRecord,
)
from ...core.rundir import RunDirectory
from ...core.spec.deployment import DeploymentSpec
from ...core.workers.records import WorkerRecords
from ..serve.claim_holder import is_submitting
from ..serve.queue_report import queued_job, report
from ..serve.router_link import ask_router, workers_by_id
from .apply import Applier, NotInChargeError
from .ended import ended_worker
from .history import moved, past_of, with_ended, with_hours, with_times
from .journal import LONGEST_TEXT, Journal
from .lease import Lease
from .look import Ending, Looker, demand_of
from .meter import Meter
from .rules.actions import Action, Cancel, Drain, Submit, Wait, Want
from .rules.decide import decide
from .rules.desired import Desired, desired_of
from .rules.observed import Member, Observed, Stage
from .schedule import Schedule
from .together import live_by_role, records_by_role

# A serve that has not finished submitting after so long has died, wherever it was.
_SERVE_TAKES_S = 600.0
# Clocks that differ by more between two looks have been set, and not only adjusted.
_CLOCK_WAS_SET_S = 5.0
# What the launcher refuses is tried again after a pause, which doubles up to the longest.
_FIRST_REFUSAL_S, _LONGEST_REFUSAL_S = 10.0, 600.0

_log = logging.getLogger(__name__)

_Records = Mapping[str, WorkerRecord | RunDirectoryError]  # by worker's id, and why one cannot be read


class _Refusal(msgspec.Struct):
    """The launcher has refused a pool's job."""

    until: float  # monotonic seconds
    pause_s: float
    why: str


class Controller:
    """The controller of one deployment.

    Args:
        run: its directory.
        launcher: where its jobs run.
        schedule: what the scheduler says of jobs to come; None: there is no scheduler.
        clock: Unix seconds.
        lease: by default one that takes over after a minute.
        monotonic: seconds.
    """

    def __init__(
        self,
        run: RunDirectory,
        launcher: Launcher,
        schedule: Schedule | None = None,
        clock: Callable[[], float] = time.time,
        lease: Lease | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._run, self._launcher, self._schedule, self._clock = run, launcher, schedule, clock
        self._monotonic = monotonic
        self._lease, self._records = lease or Lease(run), WorkerRecords(run)
        self._looker = Looker(launcher.observe, clock, monotonic)
        self._journal = Journal(run, clock)
        self._meter = Meter(run)
        self._orders: dict[str, OrderRecord] = {}
        self._refusals: dict[str, _Refusal] = {}
        self._cancelled: set[str] = set()  # workers whose jobs have not ended yet
        self._said: dict[str, str] = {}  # by pool, why it waits
        self._is_in_charge = False
        self._routers: set[str] = set()  # jobs
        self._scale: ScaleRecord | None = None
        self._unfinished: dict[str, float] = {}
        self._incomplete_since: tuple[str, float] | None = None
        self._looked_at: float | None = None  # monotonic seconds
        self._ticked_at, self._clock_ahead = monotonic(), clock() - monotonic()

    def tick(self) -> bool:
        """Look once and act on it; False where the deployment was stopped. Raises SlurminferError."""
        try:
            if self._run.read_deployment() is None:
                return False
            if not self._lease.renew():
                self._is_in_charge = False
                return True
            return self._tick()
        except RunStoppedError:
            return False
        except NotInChargeError:
            self._is_in_charge = False
        except SlurminferError as error:
            if self._is_in_charge:
                self._tell_trouble(error)
            raise
        return True

    def _tick(self) -> bool:
        deployment = self._run.read_deployment()  # another controller may have changed it before the lease was renewed
        if deployment is None:
            return False
        now = self._monotonic()
        if now - self._ticked_at > CONTROLLER_SILENCE_S:  # stopped for so long: another one may have acted
            self._is_in_charge = False
        self._ticked_at = now
        if not self._is_in_charge:
            self._begin()
        self._follow_clock()
        try:
            if deployment.is_complete or self._serve_has_died(deployment):
                self._look_and_act(deployment)
        finally:
            self._ticked_at = self._monotonic()
        return True

    @property
    def has_router(self) -> bool:
        """Whether a router's job runs that has announced itself, as of the last look."""
        return any(seen.stage is Stage.READY for job, seen in self._looker.seen.items() if job in self._routers)

    def close(self) -> None:
        """Let the next controller begin at once."""
        self._lease.release()

    def _begin(self) -> None:
        """Read what an earlier controller has left."""
        self._journal.read()
        self._orders = self._read_orders()
        self._meter = Meter(self._run)
        self._looker.forget()
        self._refusals, self._cancelled, self._said = {}, set(), {}
        self._looked_at, self._clock_ahead = None, self._clock() - self._monotonic()
        self._is_in_charge = True
        _log.info("in charge of deployment %s", self._run.path.name)

    def _read_orders(self) -> dict[str, OrderRecord]:
        found = {}
        for path in self._run.orders_path.glob("*.json"):
            try:
                order = self._run.read_order(path.stem)
            except RunDirectoryError as error:  # nor can the worker read it; it is told again what it has to know
                _log.warning("an order is lost: %s", error)
                continue
            if order is not None:
                found[path.stem] = order
        return found

    def _serve_has_died(self, deployment: DeploymentRecord) -> bool:
        claim = f"{deployment.claimed_by} {deployment.claimed_at!r}"
        if self._incomplete_since is None or self._incomplete_since[0] != claim:
            self._incomplete_since = claim, self._monotonic()
        return self._monotonic() - self._incomplete_since[1] > _SERVE_TAKES_S or not is_submitting(deployment)

    def _follow_clock(self) -> None:
        """Where this machine's clock was set, move the times that are remembered by as much."""
        ahead = self._clock() - self._monotonic()
        by, self._clock_ahead = ahead - self._clock_ahead, ahead
        if abs(by) > _CLOCK_WAS_SET_S:
            _log.warning("the clock was set by %+.0f s", by)
            self._looker.move_times(by)
            self._meter.move_times(by)
            for name, pool in self._journal.pools.items():
                self._journal.put(name, moved(pool, by))

    def _look_and_act(self, deployment: DeploymentRecord) -> None:
        spec, now = self._run.read_spec(), self._clock()
        applier = Applier(
            self._run,
            self._launcher,
            spec,
            deployment,
            self._orders,
            may_act=self._lease.keep,
            clock=self._clock,
            unfinished=self._unfinished,
            monotonic=self._monotonic,
        )
        for said in applier.take_over_intended():
            self._journal.decided(said)
        records = records_by_role(self._records.look())
        router = self._read_router()
        live, load = self._ask_router(router)
        try:
            look = self._looker.look(applier.deployment, records, router, live_by_role(live), self._orders)
        except SlurmError as error:
            self._journal.write(str(error))
            return
        self._routers = {member.job for member in look.members if member.pool == ROUTER}
        self._report_queue(now)
        self._meter.note(look, applier.deployment.jobs, spec, now, records, is_load_known=live is not None)
        self._note_ended(applier, look.endings, records)
        plans = self._plans(spec, deployment)
        self._remember(plans, look.members, now)
        observed = Observed(
            members=look.members,
            demand=demand_of(load),
            past={name: past_of(pool, now) for name, pool in self._journal.pools.items()},
        )
        if self._schedule is not None:
            observed = self._schedule.complete(spec, plans, observed, now)
        actions = decide(plans, observed, now)
        members = {member.id: member for member in look.members}
        self._act(applier, actions, members)
        applier.keep_away(members, _epochs(records))
        self._say_what_comes(plans, look.members, spec.router.queue_timeout)
        self._journal.write()

    def _plans(self, spec: DeploymentSpec, deployment: DeploymentRecord) -> Desired:
        """What spec and user ask for."""
        scale = self._read_scale()
        for pool, at in scale.asked_at.items():
            record = self._journal.pool(pool)
            if at != record.asked_at:
                self._journal.change(pool, asked_at=at, retry_asked_at=self._clock(), gave_up=False)
        allowed = self._schedule.longest_s(spec, self._clock()) if self._schedule is not None else {}
        return desired_of(spec, scale.pinned, has_walltime=deployment.launcher == "slurm", allowed=allowed)

    # What has ended, and what is remembered.

    def _note_ended(self, applier: Applier, endings: Sequence[Ending], records: _Records) -> None:
        """Note why jobs have ended, and forget them."""
        for ending in endings:
            role, order = ending.job.role, self._orders.pop(ending.job.role, None)
            ended = ended_worker(self._run, ending, order, records.get(role), self._clock())
            self._journal.put(ended.pool, with_ended(self._journal.pool(ended.pool), ended))
            self._journal.decided(f"{role} (job {ending.job.id}) has ended: {ended.cause}")
        applier.remove({ending.job.id for ending in endings})
        self._run.forget_workers({ending.job.role for ending in endings if ending.job.role != ROUTER})

    def _remember(self, plans: Desired, members: Sequence[Member], now: float) -> None:
        before, self._looked_at = self._looked_at, self._monotonic()
        elapsed = 0.0 if before is None else self._looked_at - before
        for plan in plans.pools:
            own = [member for member in members if member.pool == plan.name]
            record = with_times(self._journal.pool(plan.name), self._looker, own)
            self._journal.put(plan.name, with_hours(record, plan, own, now, elapsed))

    # What is done.

    def _act(self, applier: Applier, actions: Sequence[Action], members: Mapping[str, Member]) -> None:
        waits = {action.pool: action for action in actions if isinstance(action, Wait)}
        for action in actions:
            if isinstance(action, Want):
                self._want(action)
            elif isinstance(action, Submit):
                self._submit(applier, action, waits)
            elif isinstance(action, Drain):
                if members[action.worker].stage is not Stage.LEAVING and members[action.worker].pool != ROUTER:
                    self._journal.decided(f"{action.worker} is told to end: {action.why}")
                applier.drain(action, members[action.worker])
            elif isinstance(action, Cancel):
                applier.cancel(action, members[action.worker])
                if action.worker not in self._cancelled:
                    self._journal.decided(f"{action.worker} is cancelled: {action.why}")
                self._cancelled.add(action.worker)
        self._cancelled &= members.keys()
        for name in self._journal.pools:
            wait = waits.get(name)
            self._note_wait(name, wait)

    def _want(self, action: Want) -> None:
        before = self._journal.pool(action.pool).wanted
        if before != action.workers and action.pool != ROUTER:
            self._journal.decided(_words(action, before))
        self._journal.change(action.pool, wanted=action.workers, enough_since=action.enough_since)

    def _submit(self, applier: Applier, action: Submit, waits: dict[str, Wait]) -> None:
        refusal = self._refusals.get(action.pool)
        left = refusal.until - self._monotonic() if refusal is not None else 0.0
        if refusal is not None and left > 0:
            waits[action.pool] = Wait(pool=action.pool, why=refusal.why, until=self._clock() + left)
            return
        try:
            worker = applier.submit(action)
        except (SlurmError, SpecError) as error:
            pause = min(2 * refusal.pause_s, _LONGEST_REFUSAL_S) if refusal else _FIRST_REFUSAL_S
            why = str(error)[:LONGEST_TEXT]
            self._refusals[action.pool] = _Refusal(self._monotonic() + pause, pause, why)
            waits[action.pool] = Wait(pool=action.pool, why=why, until=self._clock() + pause)
            return
        self._refusals.pop(action.pool, None)
        self._journal.decided(f"{worker} is submitted: {action.why}")

    def _note_wait(self, pool: str, wait: Wait | None) -> None:
        words = wait.why if wait is not None else ""
        if words and words != self._said.get(pool):
            nobody = "no router is" if pool == ROUTER else f"no worker of {pool} is"
            if wait is not None and wait.gave_up:
                nobody = "no more routers are" if pool == ROUTER else f"no more workers of {pool} are"
            self._journal.decided(f"{nobody} started: {words}")
        self._said[pool] = words
        self._journal.change(
            pool, waits=words, waits_until=wait.until if wait else None, gave_up=wait.gave_up if wait else False
        )

    def _say_what_comes(self, plans: Desired, members: Sequence[Member], patience_s: float) -> None:
        """Say for each pool whether a request for it may wait, which it does for `patience_s` seconds at most."""
        coming = {one.pool for one in members if not one.obstacle and one.stage is not Stage.LEAVING}
        for plan in plans.pools:
            record = self._journal.pool(plan.name)
            soon = not record.waits or (record.waits_until or math.inf) - self._clock() <= patience_s
            may_come = not record.gave_up and plans.pinned.get(plan.name) != 0 and (plan.name in coming or soon)
            self._journal.change(plan.name, may_come=may_come)

    # The router.

    def _report_queue(self, now: float) -> None:
        """Tell the router's pages which jobs wait."""
        statuses = self._looker.statuses
        workers = {role: queued_job(status) for role, status in statuses.items() if role != ROUTER}
        report(self._run, workers, now)

    def _tell_trouble(self, error: SlurminferError) -> None:
        """Leave why nothing is done where users look, if that is possible."""
        with suppress(RunDirectoryError):
            self._journal.write(str(error)[:LONGEST_TEXT])

    def _read_scale(self) -> ScaleRecord:
        """What users have asked for, as far as it can be read. Raises RunDirectoryError where it never could be."""
        try:
            self._scale = self._run.read_scale()
        except RunDirectoryError as error:
            if self._scale is None:
                raise
            _log.warning("numbers of workers stay as they were asked for last: %s", error)
        return self._scale

    def _read_router(self) -> RouterRecord | None:
        try:
            return self._run.read_router()
        except RunDirectoryError as error:  # a router that lives stays where it is
            _log.warning("nobody knows where the router is: %s", error)
            return None

    def _ask_router(
        self, router: RouterRecord | None
    ) -> tuple[Mapping[str, Mapping[str, Any]] | None, Mapping[str, Any] | None]:
        """The router's view of its workers by id, and the load of the pools; None where it does not answer."""
        try:
            answers = ask_router(self._run, router, "/workers", "/load")
        except RunDirectoryError:  # without the key
            return None, None
        return (workers_by_id(answers[0]), answers[1]) if answers is not None else (None, None)


def _words(want: Want, before: int | None) -> str:
    """How many workers are wanted now, for the user."""
    number = "1 worker is" if want.workers == 1 else f"{want.workers or 'no'} workers are"
    change = "" if before is None else f" instead of {before}"
    return f"{want.pool}: {number} wanted{change}: {want.why}"


def _epochs(records: _Records) -> dict[str, int]:
    return {name: record.epoch for name, record in records.items() if isinstance(record, WorkerRecord)}
