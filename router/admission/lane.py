"""The requests that wait for the same workers, and which class goes next."""

import math
from collections import OrderedDict
from collections.abc import Sequence
from typing import NamedTuple

from ..tenants.tenant import Priority
from .fair_queue import FairQueue
from .rate import LeavingRate
from .ticket import Ticket

# A class that has been passed over so often by more urgent ones goes next: the share that interactive traffic leaves to
# the others even if it could use everything is one request in 32 for each of them.
PASSED_OVER = 31
_INTERACTIVE = Priority.INTERACTIVE


class Load(NamedTuple):
    """What requests ask of a lane's workers. Times are seconds."""

    waiting: int  # batch requests left out
    waited_s: float  # for so long the oldest of these has waited in all
    idle_s: float  # since a request was computed or has waited last; 0 while one is or does, infinite before the first
    batch_waiting: int = 0  # requests of class batch
    batch_waited_s: float = 0.0


class Lane:
    """Three queues, and what is known of the requests that were let in.

    Args:
        reserved: part of the slots that only interactive requests may use.
        now: on the clock of `Admission`.
    """

    __slots__ = (
        "_reserved", "_used_at", "aside", "computed", "held_ticks", "in_transit", "inside", "interactive", "passed",
        "preemptable", "queues", "rate", "waiting", "was_used",
    )  # fmt: skip

    def __init__(self, reserved: float, now: float) -> None:
        self._reserved = reserved
        self.queues = tuple(FairQueue() for _ in Priority)
        self.passed = [0 for _ in Priority]
        self.waiting = 0
        self.inside = 0  # let in by this relay: granted, or with a worker
        self.interactive = 0  # of these
        self.held_ticks = 0  # for so long free slots have been left to other relays
        self.in_transit = 0  # may enter, and on no board yet
        self.preemptable: OrderedDict[Ticket, None] = OrderedDict()  # batch inside, without a byte; latest last
        self.aside: dict[Ticket, None] = {}  # outside, waiting for a worker that has not failed with them
        self.rate = LeavingRate(now)
        self.computed = 0  # inside, and a worker has begun to answer: what workers refuse does not count
        self.was_used = False  # such a request has left since `load` was called last
        self._used_at = -math.inf

    def admits(self, priority: Priority, slots: int, in_flight: int) -> bool:
        """Whether one more of that class may be in flight beside `in_flight`.

        Requests that other relays let in count as not interactive: the board does not tell. So the reserved slots are
        kept free whatever the others do, and with several relays sometimes a few more than that.
        """
        if in_flight >= slots:
            return False
        if priority is _INTERACTIVE or in_flight <= self.interactive:  # at least one slot is for everybody
            return True
        return in_flight - self.interactive < slots - int(slots * self._reserved)

    def next_class(self, slots: int, in_flight: int) -> Priority | None:
        """Whose turn it is, or None if nobody who waits may enter now."""
        for priority in (Priority.BATCH, Priority.DEFAULT):
            if self.is_owed(priority) and self.admits(priority, slots, in_flight):
                return priority
        for priority in Priority:
            if self.queues[priority] and self.admits(priority, slots, in_flight):
                return priority
        return None

    def is_owed(self, priority: Priority) -> bool:
        """Whether a class goes before more urgent ones, because it has been passed over for long."""
        return self.passed[priority] >= PASSED_OVER and len(self.queues[priority]) > 0

    def pop(self, priority: Priority) -> Ticket:
        """Take out the next request of that class, and note whom it passes."""
        ticket = self.queues[priority].pop()
        self.waiting -= 1
        self.passed[priority] = 0
        for other in Priority:
            if other > priority:
                self.passed[other] = self.passed[other] + 1 if self.queues[other] else 0
        return ticket

    def load(self, now: float, timeout_s: float) -> Load:
        """What is asked of the workers. `timeout_s`: how long a request may wait, by which its deadline was set."""
        if self.was_used or self.computed or self.waiting or self.aside:
            self.was_used, self._used_at = False, now
        batch: list[Ticket] = []
        others: list[Ticket] = []
        for ticket in (*self.aside, *(ticket for queue in self.queues for ticket in queue)):
            (batch if ticket.priority is Priority.BATCH else others).append(ticket)
        return Load(
            len(others),
            _waited_s(others, now, timeout_s),
            now - self._used_at,
            len(batch),
            _waited_s(batch, now, timeout_s),
        )

    def counts(self) -> list[int]:
        """Requests that wait here, by class."""
        return [len(queue) for queue in self.queues]

    def is_others_turn(self, priority: Priority, elsewhere: Sequence[int], slots: int, in_flight: int) -> bool:
        """Whether a free slot is for a request that waits in another relay, rather than for one of that class here.

        Relays see a free slot at different times: the one in which a request has ended would always be the first, and
        the others would get nothing. So more urgent requests go first, wherever they wait; and among equal ones, each
        relay gets slots in proportion to what it has in flight and waiting.

        Args:
            priority: of the request here.
            elsewhere: requests that wait in the other relays, by class.
            slots: that the workers have.
            in_flight: of all relays.
        """
        if any(elsewhere[:priority]):
            return True
        if not elsewhere[priority]:
            return False
        here = self.inside + sum(self.counts()[: priority + 1])
        there = max(0, in_flight - self.inside) + elsewhere[priority]
        return self.inside >= max(1, slots * here // (here + there))

    def preemption_helps(self, slots: int, in_flight: int) -> bool:
        """Whether a request that is more urgent than batch waits and could enter if batch gave way."""
        if not self.preemptable:
            return False
        after = in_flight - len(self.preemptable)
        return any(
            self.queues[priority] and self.admits(priority, slots, after)
            for priority in (Priority.INTERACTIVE, Priority.DEFAULT)
        )


def _waited_s(tickets: Sequence[Ticket], now: float, timeout_s: float) -> float:
    """For so long the oldest has waited."""
    first = min((ticket.deadline for ticket in tickets if ticket.deadline is not None), default=None)
    return 0.0 if first is None else max(0.0, now - first + timeout_s)
