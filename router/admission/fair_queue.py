"""A queue that is first in, first out for each tenant, and shares what it lets out fairly between tenants."""

from collections import OrderedDict
from collections.abc import Iterator
from operator import attrgetter

from .ticket import Ticket

_LEAST_COST = 1.0  # tokens; so that a request of no estimated work counts too


class _Flow:
    """The requests of one tenant that wait, oldest first, and the start tag of the first of them."""

    __slots__ = ("start", "tickets")

    def __init__(self, start: float) -> None:
        self.tickets: OrderedDict[Ticket, None] = OrderedDict()
        self.start = start


_start_of = attrgetter("start")


class FairQueue:
    """Requests of one class that wait for the same workers.

    Start-time fair queuing (Goyal, Vin, Cheng 1996): each request has a start tag, which is the finish tag of the
    tenant's request before it or, if that is later, the virtual time; its finish tag is cost / weight more. The request
    with the lowest start tag goes next, and its start tag is the virtual time. So tenants that always have requests
    waiting get work in proportion to their weights, whatever the size of their requests, and one that was away has
    saved up nothing. Tags are given to the first request of a tenant only: those behind it may be cancelled.

    `pop` is linear in the number of tenants that wait at the moment; everything else takes constant time.
    """

    def __init__(self) -> None:
        self._flows: dict[str, _Flow] = {}  # of the tenants that wait
        self._finished: dict[str, float] = {}  # finish tags of tenants that do not
        self._virtual_time = 0.0
        self._returned: OrderedDict[Ticket, None] = OrderedDict()  # preempted ones: they go before all others
        self._arrivals: OrderedDict[Ticket, None] = OrderedDict()  # the others, by deadline

    def __len__(self) -> int:
        return len(self._arrivals) + len(self._returned)

    def __iter__(self) -> Iterator[Ticket]:
        yield from self._returned
        yield from self._arrivals

    def push(self, ticket: Ticket) -> None:
        """Put a request at the end of its tenant's; its deadline is not before that of any earlier one."""
        flow = self._flows.get(ticket.tenant)
        if flow is None:
            finished = self._finished.pop(ticket.tenant, 0.0)
            flow = self._flows[ticket.tenant] = _Flow(max(self._virtual_time, finished))
        flow.tickets[ticket] = None
        self._arrivals[ticket] = None

    def push_front(self, ticket: Ticket) -> None:
        """Put back a request that was popped: it goes next. It is not charged to its tenant again."""
        self._returned[ticket] = None
        self._returned.move_to_end(ticket, last=False)

    def pop(self) -> Ticket:
        """Take out the request that goes next. The queue must not be empty."""
        if self._returned:
            ticket, _ = self._returned.popitem(last=False)
        else:
            flow = min(self._flows.values(), key=_start_of)
            ticket = next(iter(flow.tickets))
            self._virtual_time = flow.start
            flow.start += max(ticket.cost, _LEAST_COST) / ticket.weight
            self._take_out(ticket)
        self._rest_if_empty()
        return ticket

    def remove(self, ticket: Ticket) -> None:
        """Take out a request that waits, wherever it stands; its tenant is not charged."""
        if ticket in self._returned:
            del self._returned[ticket]
        else:
            self._take_out(ticket)
        self._rest_if_empty()

    def newest_of_largest(self) -> Ticket | None:
        """The request that gives way where there is no room for all: the last of the tenant with most per weight."""
        largest = max(self._flows.values(), key=_weighted_length, default=None)
        return None if largest is None else next(reversed(largest.tickets))

    def weighted_length(self, tenant: str, weight: float) -> float:
        """How many requests of a tenant wait, relative to its weight."""
        flow = self._flows.get(tenant)
        return 0.0 if flow is None else len(flow.tickets) / weight

    def expired(self, now: float) -> list[Ticket]:
        """The requests whose deadlines have passed; they stay where they are."""
        found = [ticket for ticket in self._returned if ticket.deadline is not None and ticket.deadline <= now]
        for ticket in self._arrivals:
            if ticket.deadline is not None and ticket.deadline > now:
                break
            found.append(ticket)
        return found

    def _take_out(self, ticket: Ticket) -> None:
        flow = self._flows[ticket.tenant]
        del flow.tickets[ticket], self._arrivals[ticket]
        if not flow.tickets:
            del self._flows[ticket.tenant]
            self._finished[ticket.tenant] = flow.start

    def _rest_if_empty(self) -> None:
        """Begin anew when nobody waits: who comes next has no debts, and tags do not grow for ever."""
        if not self._arrivals and not self._returned:
            self._finished.clear()
            self._virtual_time = 0.0


def _weighted_length(flow: _Flow) -> float:
    return len(flow.tickets) / next(iter(flow.tickets)).weight
