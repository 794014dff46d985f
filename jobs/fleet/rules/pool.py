"""One pool at one time: what is wanted of it, what is seen of it, and what is to be expected."""

from collections.abc import Sequence

from . import handover, link
from .desired import PoolPlan
from .observed import Member, Observed, Past, Stage

# A worker that has produced no token for so long does not serve any more.
HUNG_S = 120.0


class Pool:
    """What decisions about a pool are made from.

    Args:
        plan: what the spec asks for.
        pinned: the number of workers that a user has asked for; None: nobody has.
        members: its workers.
        observed: one look at everything.
        now: Unix time of the look.
    """

    def __init__(
        self, plan: PoolPlan, pinned: int | None, members: Sequence[Member], observed: Observed, now: float
    ) -> None:
        self.plan, self.pinned, self.members, self.observed, self.now = plan, pinned, members, observed, now
        self.demand = (observed.demand or {}).get(plan.name)
        past = observed.past.get(plan.name, Past())
        self.outlook = link.Outlook(
            plan=plan,
            past=past,
            now=now,
            reserved=observed.reserved.get(plan.name),
            forecast=observed.forecasts.get(plan.name),
        )
        self.past = handover.with_forecast(past, link.choose(self.outlook))
        self.staying = [member for member in members if member.stage is not Stage.LEAVING]
        self.successors = handover.successors(members)

    @property
    def covered(self) -> int:
        """How many workers there are or come; a worker and its successor count as one."""
        return len(self.staying) - len(self.successors)

    def is_hung(self, member: Member) -> bool:
        """Whether a worker has produced no token for so long that it is given up."""
        return member.hung_since is not None and self.now - member.hung_since >= HUNG_S

    def next_link(self, replaces: str = "") -> link.Choice | None:
        """The walltime limit of a new job; None where it would end too soon to be of use.

        Args:
            replaces: id of the worker that it takes over from; empty for none. One that hangs counts as missing.
        """
        before = next((member for member in self.staying if member.id == replaces), None)
        return link.choose(self.outlook, None if before is None or self.is_hung(before) else before)
