"""The fleet that `decide` keeps. Its controller is killed, reads nothing at times, and some of its actions are lost."""

import random
from dataclasses import dataclass, field

import msgspec

from slurminfer.core.workers.ids import pool_name
from slurminfer.jobs.fleet.history import expected
from slurminfer.jobs.fleet.rules.actions import Action, Cancel, Drain, Submit, Wait, Want
from slurminfer.jobs.fleet.rules.decide import decide
from slurminfer.jobs.fleet.rules.desired import Desired, PoolPlan
from slurminfer.jobs.fleet.rules.harvest import STARTS_WITHIN_S
from slurminfer.jobs.fleet.rules.link import candidates
from slurminfer.jobs.fleet.rules.observed import Ended, Member, Observed, Past, PoolForecast, Reserved, Stage, Start

from .chance import DAY, HOUR, Fault
from .workers import Case, Fleet, Worker

EPOCH = 1_800_000_000.0 // DAY * DAY  # Unix time at which the simulation begins
_UNREAD, _LOST, _KILLED = 0.02, 0.01, 1 / DAY  # parts of looks and actions; a second
_AWAY = 1 / (7 * DAY), 1200.0  # Slurm does not answer: so often a second, and for so long
_BLIND = 1 / (10 * DAY), 600.0  # so is the shared filesystem away
_WRONG = 0.02  # part of the forecasts of a start, that say one at once where there is none
_HEARD_S, _PROBED_S = 60.0, 30.0
_MOST_TIMES, _MOST_ENDED = 20, 50


@dataclass(slots=True)
class _Seen:
    """What the controller knows of a worker since it was started."""

    stage: Stage
    since: float
    faulty_since: float | None = None
    member: Member | None = None


@dataclass(slots=True)
class Memory:
    """What it knows of a pool, in its file."""

    past: Past = field(default_factory=Past)
    loads: list[float] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)
    used_s: float = 0.0  # until today
    predicted_s: float = 0.0  # of a backfill pool: for so long its workers were expected to serve, all together
    ready_s: float = 0.0  # for so long those that have ended have served
    missed: int = 0  # jobs that did not start although they were to
    preempted: int = 0


@dataclass(slots=True)
class Tick:
    """What happened at one look. `is_blind`: nothing could be read."""

    actions: list[Action] = field(default_factory=list)
    lost: int = 0
    is_blind: bool = False
    silent: frozenset[str] = frozenset()  # workers that were cancelled because they were silent


@dataclass(slots=True, eq=False)
class Ours(Fleet):
    """Our controller. Times it sees are Unix seconds."""

    seen: dict[str, _Seen] = field(default_factory=dict)
    memory: dict[str, Memory] = field(default_factory=dict)
    last: Tick = field(default_factory=Tick)
    restarts: int = 0
    _chance: random.Random = field(default_factory=lambda: random.Random("controller"))
    _guesses: random.Random = field(default_factory=lambda: random.Random("forecasts"))
    _away_until: float = -1.0
    is_blind: bool = False  # the shared filesystem is away
    _blind_from: float = -1.0
    _blind_until: float = -1.0

    def act(self, now: float, tick_s: float, number: int) -> None:
        """Look, decide, and act."""
        if number == 0:
            for case in self.cases:
                self.memory[case.plan.name] = Memory()
                for _ in range(case.plan.initial):
                    self.submit(case, now, case.plan.time_s)
        self.last = Tick(is_blind=True)
        if self._chance.random() < _KILLED * tick_s:
            self.restarts += 1
            self.seen = {}
            return
        self._trouble(now, tick_s)
        if now < self._away_until or self._chance.random() < _UNREAD:
            self._require_nothing(now)
            return
        observed = self._look(now)
        desired = Desired(tuple(case.plan for case in self.cases))
        self.last = Tick(decide(desired, observed, EPOCH + now))
        self._apply(now)

    def ended(self, worker: Worker, now: float, why: str) -> None:
        """Note why it has ended."""
        memory = self.memory[worker.case.plan.name]
        one = Ended(
            id=worker.id,
            pool=worker.case.plan.name,
            at=EPOCH + now,
            submitted_at=EPOCH + worker.submitted_at,
            ready_s=worker.ready_s,
            is_wanted=worker.is_told or worker.stays_away,
            by_scheduler=why in ("walltime", "node", "preempted"),
            cause=why,
            was_cut=worker.case.plan.is_backfill and not worker.is_told and why != "walltime",
            has_missed=self._has_missed(worker, now),
        )
        memory.ready_s += worker.ready_s
        memory.missed += one.has_missed
        memory.preempted += why == "preempted"
        memory.past = _replaced(memory.past, ended=(*memory.past.ended, one)[-_MOST_ENDED:])
        self.seen.pop(worker.id, None)

    def _has_missed(self, worker: Worker, now: float) -> bool:
        is_late = now - worker.submitted_at >= STARTS_WITHIN_S
        return worker.case.plan.is_backfill and worker.job.started_at is None and is_late

    def ask_for_retry(self, now: float) -> None:
        """Let somebody ask for another try of every pool, as `slurminfer scale` does."""
        for memory in self.memory.values():
            memory.past = _replaced(memory.past, retry_asked_at=EPOCH + now)

    def _trouble(self, now: float, tick_s: float) -> None:
        if self._chance.random() < _AWAY[0] * tick_s:
            self._away_until = now + _AWAY[1]
        if self._chance.random() < _BLIND[0] * tick_s:
            self._blind_from, self._blind_until = now, now + _BLIND[1]
        self.is_blind = self._blind_from <= now < self._blind_until

    def _require_nothing(self, now: float) -> None:
        desired = Desired(tuple(case.plan for case in self.cases))
        if decide(desired, Observed(members=None), EPOCH + now):
            raise AssertionError("it acts although nothing could be read")

    # Looking.

    def _look(self, now: float) -> Observed:
        members = tuple(self._member(worker, now) for worker in self.workers.values())
        window = self.cluster.next_maintenance(now)
        reserved = {} if window is None else {case.plan.name: _reserved(window, now) for case in self.cases}
        is_heard = self._chance.random() >= _UNREAD
        demand = {case.plan.name: case.requests.demand(now) for case in self.cases} if is_heard else None
        past = {case.plan.name: self._past(case, now) for case in self.cases}
        forecasts = {
            case.plan.name: self._forecast(case.plan, case.nodes, now) for case in self.cases if case.plan.is_backfill
        }
        return Observed(members=members, demand=demand, past=past, reserved=reserved, forecasts=forecasts)

    def _forecast(self, plan: PoolPlan, nodes: int, now: float) -> PoolForecast:
        is_wrong = self._guesses.random() < _WRONG
        starts = []
        for limit in candidates(plan, plan.longest_s):
            room = self.cluster.room(nodes, limit, now)
            starts.append(Start(time_s=limit, wait_s=0.0 if is_wrong or room else HOUR, room=room or None))
        return PoolForecast(asked_at=EPOCH + now, starts=tuple(starts))

    def _past(self, case: Case, now: float) -> Past:
        name = case.plan.name
        memory, used_s = self.memory[name], self.used_s.get(name, 0.0)
        if now % DAY == 0:
            memory.used_s = used_s
        day_ends_at = EPOCH + (now // DAY + 1) * DAY
        return _replaced(memory.past, hours_today=(used_s - memory.used_s) / 3600, day_ends_at=day_ends_at)

    def _member(self, worker: Worker, now: float) -> Member:
        stage = Stage.LEAVING if worker.is_told else worker.stage
        seen = self.seen.get(worker.id)
        if seen is None:
            seen = self.seen[worker.id] = _Seen(stage, worker.submitted_at if stage is Stage.PENDING else now)
        elif seen.stage is not stage:
            self._measure(worker.case, seen, stage, now)
            seen.stage, seen.since, seen.member = stage, now, None
        is_blind = self.is_blind
        faulty_since = self._blind_from if is_blind else worker.fault_at if worker.fault is not None else None
        if seen.member is None or faulty_since != seen.faulty_since or is_blind or worker.fault is not None:
            seen.faulty_since = faulty_since
            seen.member = self._made(worker, seen, faulty_since, is_blind, now)
        return seen.member

    def _made(self, worker: Worker, seen: _Seen, faulty_since: float | None, is_blind: bool, now: float) -> Member:
        job, is_running = worker.job, seen.stage is not Stage.PENDING
        silent = hung = None
        if faulty_since is not None and is_running:
            if (is_blind or worker.fault is Fault.SILENCE) and now - faulty_since >= _HEARD_S:
                silent = EPOCH + faulty_since
            if worker.fault is Fault.HANG and now - worker.fault_at >= _PROBED_S:
                hung = EPOCH + max(worker.fault_at + _PROBED_S, seen.since)
        return Member(
            id=worker.id,
            pool=worker.case.plan.name,
            job=worker.id,
            slot=0,
            stage=seen.stage,
            since=EPOCH + seen.since,
            submitted_at=EPOCH + worker.submitted_at,
            ends_at=EPOCH + job.ends_at if job.started_at is not None else None,
            limit_s=job.limit_s,
            replaces=worker.replaces,
            capacity=worker.case.requests.capacity,
            silent_since=silent,
            hung_since=hung,
        )

    def _measure(self, case: Case, seen: _Seen, stage: Stage, now: float) -> None:
        memory = self.memory[case.plan.name]
        if seen.stage is Stage.PENDING:
            memory.waits.append(now - seen.since)
        if seen.stage is Stage.STARTING and stage is Stage.READY:
            memory.loads.append(now - seen.since)
        del memory.loads[:-_MOST_TIMES], memory.waits[:-_MOST_TIMES]
        memory.past = _replaced(
            memory.past,
            load_s=expected(memory.loads),
            wait_s=expected(memory.waits) or 0.0,
            capacity=case.requests.capacity if stage is Stage.READY else memory.past.capacity,
        )

    # Acting.

    def _apply(self, now: float) -> None:
        by_name = {case.plan.name: case for case in self.cases}
        for action in self.last.actions:
            if isinstance(action, Want):
                memory = self.memory[action.pool]
                memory.past = _replaced(memory.past, wanted=action.workers, enough_since=action.enough_since)
            elif isinstance(action, Wait):
                continue
            elif self._chance_of(action).random() < _LOST:
                self.last.lost += 1
            elif isinstance(action, Submit):
                self.submit(by_name[action.pool], now, action.time_s, action.replaces)
                self.memory[action.pool].predicted_s += action.predicted_s or 0.0
            elif isinstance(action, Drain):
                self.tell(self.workers[action.worker], now)
            elif isinstance(action, Cancel) and action.worker in self.workers:
                self.cancel(self.workers[action.worker], now)
        replaced = {one.replaces for one in self.workers.values() if not one.is_told and one.stage is not Stage.LEAVING}
        for worker in self.workers.values():
            worker.stays_away = worker.id in replaced

    def _chance_of(self, action: Submit | Drain | Cancel) -> random.Random:
        """Backfill pools have one of their own, so that the other pools see the same chances without them."""
        pool = action.pool if isinstance(action, Submit) else pool_name(action.worker)
        is_backfill = any(case.plan.is_backfill and case.plan.name == pool for case in self.cases)
        return self._guesses if is_backfill else self._chance


def _reserved(window: tuple[float, float], now: float) -> Reserved:
    return Reserved(starts_at=EPOCH + max(now, window[0]), ends_at=EPOCH + window[1])


def _replaced(past: Past, **changes: object) -> Past:
    return msgspec.structs.replace(past, **changes)
