"""What to do about a fleet: a pure function of what is wanted, what is seen, and the time.

It looks at the state there is, not at how it came about. So whoever asks it again after an action was lost, done twice
or done by somebody else gets what is right now. Nothing is concluded from what could not be read.
"""

from collections.abc import Collection, Iterator, Sequence

import msgspec

from . import handover, harvest, supply
from .actions import Action, Cancel, Drain, Submit, Wait, Want
from .desired import Desired, PoolPlan
from .observed import Member, Observed, Stage
from .pool import HUNG_S, Pool
from .scaling import Wanted, wanted

# An agent that has not written for so long has stopped.
SILENT_S = 180.0
_MOST_SUBMITTED = 20  # in one look
_ORDER = (Stage.RETURNING, Stage.PENDING, Stage.STARTING, Stage.READY)


def decide(desired: Desired, observed: Observed, now: float) -> list[Action]:
    """What is to be done now, in order. Empty where the scheduler could not be asked.

    Args:
        desired: what the spec and the user ask for.
        observed: one look at jobs, workers and load.
        now: Unix time of the look.
    """
    if observed.members is None:
        return []
    silent = _silent(observed.members, now)
    serving = {one.pool for one in observed.members if one.stage is Stage.READY and one.id not in silent}
    actions: list[Action] = []
    for plan in desired.pools:
        own = tuple(
            msgspec.structs.replace(member, stage=Stage.LEAVING) if member.id in silent else member
            for member in observed.members
            if member.pool == plan.name
        )
        for member in own:
            if member.id in silent:
                actions.append(Cancel(worker=member.id, why=f"its agent has not written for {SILENT_S:.0f} s"))
        pool = _Pool(plan, desired.pinned.get(plan.name), own, observed, now)
        actions += pool.actions(is_served_elsewhere=_is_served_elsewhere(plan, desired.pools, serving))
    return _bounded(actions)


class _Pool(Pool):
    """Decides for one pool."""

    def actions(self, *, is_served_elsewhere: bool) -> Iterator[Action]:
        number, why = self.pinned, "fewer workers are wanted"
        if number is None:
            found = self._wanted(is_served_elsewhere=is_served_elsewhere)
            number = found.workers
            if found.why or number != self.past.wanted or found.enough_since != self.past.enough_since:
                yield Want(
                    pool=self.plan.name,
                    workers=number,
                    why=found.why or "as the spec says",
                    enough_since=found.enough_since,
                )
        elif number != self.past.wanted:
            yield Want(pool=self.plan.name, workers=number, why="as 'slurminfer scale' has said", enough_since=None)
        if self._is_spent() and number > self.plan.fewest:
            number, why = self.plan.fewest, f"hours_per_day = {self.plan.hours_per_day:g} are used up until midnight"
            yield Wait(pool=self.plan.name, why=why, until=self.past.day_ends_at)
        yield from self._end_disobedient()
        if self.plan.is_backfill:
            yield from harvest.late(self.staying, self.now)
            yield from self._end_hung()
        else:
            yield from self._end_too_long()
        yield from self._release(number)
        covered = self.covered
        if covered > number:
            yield from self._reduce(covered - number, why)
        elif self.plan.is_backfill:
            yield from supply.harvested(self, number - covered)
        else:
            yield from supply.submitted(self, number - covered)

    def _wanted(self, *, is_served_elsewhere: bool) -> Wanted:
        if self.plan.is_backfill:
            return harvest.wanted(self.plan, self.past, self.demand, self.staying, self.now)
        return wanted(
            self.plan, self.past, self.demand, self.staying, self.now, is_served_elsewhere=is_served_elsewhere
        )

    def _is_spent(self) -> bool:
        limit = self.plan.hours_per_day
        return limit is not None and self.past.hours_today >= limit

    def _end_disobedient(self) -> Iterator[Action]:
        for member in self.members:
            is_told = member.stage is Stage.LEAVING and member.silent_since is None
            if is_told and self.now - member.since > self.plan.leaves_s:
                yield Cancel(worker=member.id, why="it was told to end and has not")

    def _end_hung(self) -> Iterator[Action]:
        """End workers that compute nothing, where none gets a successor."""
        for member in self.staying:
            if self.is_hung(member):
                yield _end(member, f"it has produced no token for {HUNG_S:.0f} s")

    def _end_too_long(self) -> Iterator[Action]:
        """Cancel jobs that wait for the end of a reservation, although a shorter one could start before it."""
        reserved = self.outlook.reserved
        if reserved is None:
            return
        for member in self.staying:
            is_too_long = member.limit_s is not None and self.now + member.limit_s > reserved.starts_at
            if member.stage is Stage.PENDING and is_too_long and self.next_link(member.replaces) is not None:
                yield Cancel(
                    worker=member.id, why="it would wait for the end of a reservation: a shorter job takes its place"
                )

    def _release(self, number: int) -> Iterator[Action]:
        """Let workers go whose successor serves, unless fewer would serve then than are wanted."""
        serving = sum(_serves(member) for member in self.staying)
        for member in sorted(self.staying, key=lambda one: one.ends_at or float("inf")):
            successor = self.successors.get(member.id)
            if successor is None or not _serves(successor) or self.now - successor.since < handover.SETTLED_S:
                continue
            if _serves(member):
                if serving <= number:
                    continue
                serving -= 1
            yield _end(member, f"{successor.id} has taken over")

    def _reduce(self, by: int, why: str) -> Iterator[Action]:
        """End workers that are not wanted: those that do not serve first, then idle ones, then the soonest to end."""
        paired = {one.id for one in self.successors.values()}
        candidates = sorted((member for member in self.staying if member.id not in paired), key=self._worth)
        for member in candidates[:by]:
            for one in self._line(member):
                yield _end(one, why)

    def _worth(self, member: Member) -> tuple[bool, int, bool, float, int, float]:
        """How little is lost with a worker and its successor, the least first."""
        line = self._line(member)
        return (
            any(_serves(one) for one in line),
            max(_ORDER.index(one.stage) for one in line),
            any(one.in_flight for one in line),
            max(one.ends_at or float("inf") for one in line),
            member.in_flight,
            -member.submitted_at,
        )

    def _line(self, member: Member) -> list[Member]:
        """A worker and its successor, which may have one too."""
        line = [member]
        while (successor := self.successors.get(line[-1].id)) is not None:
            line.append(successor)
        return line


def _silent(members: Sequence[Member], now: float) -> set[str]:
    """Those whose agents have stopped. None if most have: then it is the filesystem, as seen from here."""
    running = [member for member in members if member.stage is not Stage.PENDING]
    silent = {one.id for one in running if one.silent_since is not None and now - one.silent_since >= SILENT_S}
    return set() if len(silent) > 1 and len(silent) * 2 > len(running) else silent


def _is_served_elsewhere(plan: PoolPlan, pools: Sequence[PoolPlan], serving: Collection[str]) -> bool:
    """Whether another pool has a ready worker of the same model."""
    same = [other.name for other in pools if other.model == plan.model and other.name != plan.name]
    return plan.model is not None and any(name in serving for name in same)


def _serves(member: Member) -> bool:
    return member.stage is Stage.READY and member.hung_since is None and member.silent_since is None


def _end(member: Member, why: str) -> Action:
    return Cancel(worker=member.id, why=why) if member.stage is Stage.PENDING else Drain(worker=member.id, why=why)


def _bounded(actions: Sequence[Action]) -> list[Action]:
    submitted = [action for action in actions if isinstance(action, Submit)]
    late = {id(action) for action in submitted[_MOST_SUBMITTED:]}
    return [action for action in actions if id(action) not in late]
