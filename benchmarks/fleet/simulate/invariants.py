"""What must hold after every look of the controller."""

import math
from collections import Counter
from dataclasses import dataclass, field

from slurminfer.jobs.fleet.rules.actions import Cancel, Drain, Submit, Want
from slurminfer.jobs.fleet.rules.harvest import STARTS_WITHIN_S
from slurminfer.jobs.fleet.rules.observed import Stage

from .chance import DAY, HOUR
from .ours import EPOCH, Ours
from .workers import Case, Worker

_MOST_SUBMITTED = 20  # at one look
_REACTS = 3  # looks
_LONGEST_PAUSE_S = 600.0  # after failures
_MAINTENANCE_S = 2 * HOUR  # before one, workers may be of no use any more
_ENDING_S = 300.0  # for so long a worker that was told to end may take


@dataclass(slots=True)
class _Watched:
    """One pool."""

    lacking: int = 0  # looks in a row at which workers were missing without a reason
    disturbed_at: float = 0.0
    wanted: int = 0
    failed_at: float = -math.inf
    over_since: float | None = None
    midnight_s: float = 0.0


@dataclass(slots=True, eq=False)
class Invariants:
    """Looks at a fleet after each of its looks. `broken`: how often each invariant did not hold.

    submissions   at most 20 jobs at one look, at most `most_pending` of a pool in the queue, and no more workers than
                  are wanted, apart from successors
    successors    no worker that serves is ended while fewer serve than are wanted
    covered       for every worker that is wanted there is one, or a job, after three looks; except where failures were
                  less than ten minutes ago, a maintenance is near, the queue's bound is reached, or the budget is used
    restored      where nothing has happened for the time of a start, as many workers serve as are wanted
    queue         at most `most_pending` jobs of a backfill pool wait, and none for more than three minutes and three
                  looks; none is submitted while one waits
    budget        when the hours of a day are used, only `fewest` workers run five minutes later
    """

    fleet: Ours
    broken: Counter[str] = field(default_factory=Counter)
    examples: list[str] = field(default_factory=list)
    looks: int = 0
    _pools: dict[str, _Watched] = field(default_factory=dict)
    _before: dict[str, set[str]] = field(default_factory=dict)
    _pending: dict[str, int] = field(default_factory=dict)  # jobs of backfill pools, before the controller acts
    _ends: int = 0

    def before(self) -> None:
        """Note which workers serve, and how many wait, before the controller acts."""
        self._ends = self.fleet.ends
        self._before = {case.plan.name: self._serving(self.fleet.of(case)) for case in self.fleet.cases}
        self._pending = {
            case.plan.name: sum(one.stage is Stage.PENDING and not one.is_told for one in self.fleet.of(case))
            for case in self.fleet.cases
            if case.plan.is_backfill
        }

    def check(self, now: float, tick_s: float) -> None:
        """Check all of them."""
        self.looks += 1
        last = self.fleet.last
        submitted = [action for action in last.actions if isinstance(action, Submit)]
        self._require("submissions", len(submitted) <= _MOST_SUBMITTED, now, "too many at one look")
        for case in self.fleet.cases:
            watched = self._pools.setdefault(case.plan.name, _Watched())
            self._check_pool(case, watched, [one for one in submitted if one.pool == case.plan.name], now, tick_s)

    def _check_pool(self, case: Case, watched: _Watched, submitted: list[Submit], now: float, tick_s: float) -> None:
        workers, name = self.fleet.of(case), case.plan.name
        if case.plan.is_backfill:
            self._check_backfill(case, watched, workers, submitted, now, tick_s)
            return
        wanted = self._wanted(case)
        staying = [one for one in workers if not one.is_told and one.stage is not Stage.LEAVING]
        ids = {one.id for one in staying}
        covered = sum(one.replaces not in ids for one in staying)
        serving = self._serving(workers)
        pending = sum(one.stage is Stage.PENDING for one in staying)
        if submitted:
            self._require("submissions", pending <= case.plan.most_pending, now, f"{name}: {pending} pending")
            is_kept = covered <= wanted or self.fleet.last.lost > 0
            self._require("submissions", is_kept, now, f"{name}: {covered} workers for {wanted}")
        if not self.fleet.last.is_blind:
            ended = self._ended_by_us(case)
            is_kept = len(serving) >= min(wanted, len(self._before[name]))
            self._require(
                "successors", not ended or is_kept, now, f"{name}: {ended} ended, {len(serving)} of {wanted} serve"
            )
        is_excused = self._is_excused(case, watched, pending, wanted, now)
        self._check_covered(case, watched, wanted - covered, is_excused, now)
        if is_excused or self._is_disturbed(watched, wanted, staying):
            watched.disturbed_at = now
        patience, number = case.longest_load_s + _REACTS * tick_s, sum(one.serves for one in staying)
        is_late = now - watched.disturbed_at > patience and number < wanted
        self._require("restored", not is_late, now, f"{name}: {number} of {wanted} serve")
        watched.wanted = wanted
        self._check_budget(case, watched, staying, now)

    def _check_backfill(
        self, case: Case, watched: _Watched, workers: list[Worker], submitted: list[Submit], now: float, tick_s: float
    ) -> None:
        name, staying = case.plan.name, [one for one in workers if not one.is_told]
        pending = [one for one in staying if one.stage is Stage.PENDING]
        if submitted:
            waited = self._pending[name]
            self._require("queue", len(pending) <= case.plan.most_pending, now, f"{name}: {len(pending)} pending")
            self._require("queue", not waited, now, f"{name}: submitted while {waited} waited")
        is_late = any(now - one.submitted_at > STARTS_WITHIN_S + _REACTS * tick_s for one in pending)
        watched.lacking = watched.lacking + 1 if is_late and not self.fleet.last.is_blind else 0
        self._require("queue", watched.lacking <= _REACTS, now, f"{name}: a job waits for too long")
        self._check_budget(case, watched, staying, now)

    def _is_disturbed(self, watched: _Watched, wanted: int, staying: list[Worker]) -> bool:
        """Whether something stands against as many workers as are wanted, beside the time that they take to load."""
        last = self.fleet.last
        is_new = wanted != watched.wanted or self.fleet.ends != self._ends or last.is_blind or last.lost > 0
        return is_new or any(one.stage in (Stage.PENDING, Stage.RETURNING) or one.fault is not None for one in staying)

    def _is_excused(self, case: Case, watched: _Watched, pending: int, wanted: int, now: float) -> bool:
        past = self.fleet.memory[case.plan.name].past
        if past.ended and not past.ended[-1].is_wanted and not past.ended[-1].by_scheduler:
            watched.failed_at = past.ended[-1].at
        window = self.fleet.cluster.next_maintenance(now)
        is_near = window is not None and now >= window[0] - _MAINTENANCE_S
        begin, end = case.broken
        has_failed = _now(now) - watched.failed_at <= _LONGEST_PAUSE_S or begin <= now < end + HOUR
        return is_near or has_failed or pending >= case.plan.most_pending

    def _check_covered(self, case: Case, watched: _Watched, missing: int, is_excused: bool, now: float) -> None:
        last = self.fleet.last
        if missing <= 0 or is_excused:
            watched.lacking = 0
        elif not last.is_blind and not last.lost:
            watched.lacking += 1
        self._require("covered", watched.lacking <= _REACTS, now, f"{case.plan.name}: {missing} without a job")

    def _check_budget(self, case: Case, watched: _Watched, staying: list[Worker], now: float) -> None:
        is_over = self._is_spent(case) and sum(one.job.started_at is not None for one in staying) > case.plan.fewest
        if not is_over or self.fleet.last.is_blind:
            watched.over_since = None
        elif watched.over_since is None:
            watched.over_since = now
        is_late = watched.over_since is not None and now - watched.over_since > _ENDING_S
        self._require("budget", not is_late, now, f"{case.plan.name}: still runs more than {case.plan.fewest}")

    def _is_spent(self, case: Case) -> bool:
        name, limit = case.plan.name, case.plan.hours_per_day
        used_s = self.fleet.used_s.get(name, 0.0) - self.fleet.memory[name].used_s
        return limit is not None and used_s / 3600 >= limit

    def _wanted(self, case: Case) -> int:
        said = [one for one in self.fleet.last.actions if isinstance(one, Want) and one.pool == case.plan.name]
        wanted = said[-1].workers if said else self.fleet.memory[case.plan.name].past.wanted or 0
        return min(wanted, case.plan.fewest) if self._is_spent(case) else wanted

    def _serving(self, workers: list[Worker]) -> set[str]:
        """Those that serve, as far as can be seen. If the filesystem is away, nobody's silence means anything."""
        found = set()
        for one in workers:
            seen = self.fleet.seen.get(one.id)
            member = seen.member if seen is not None else None
            is_well = member is None or (
                member.hung_since is None and (self.fleet.is_blind or member.silent_since is None)
            )
            if one.stage is Stage.READY and is_well and not one.is_told:
                found.add(one.id)
        return found

    def _ended_by_us(self, case: Case) -> list[str]:
        told = [one.worker for one in self.fleet.last.actions if isinstance(one, (Drain, Cancel))]
        return [worker for worker in told if worker in self._before[case.plan.name]]

    def _require(self, name: str, holds: bool, now: float, detail: str) -> None:
        if not holds:
            self.broken[name] += 1
            if self.broken[name] < 6:
                self.examples.append(f"day {now / DAY:.3f}: {name}: {detail}")


def _now(now: float) -> float:
    return EPOCH + now
