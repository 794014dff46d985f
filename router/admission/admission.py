"""Who may be sent to a worker now, who waits, and who is refused."""

import asyncio
import time
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager

from ..tenants.refusal import Refused
from ..tenants.tenant import Priority
from .environment import CallLater, Neighbours, Room, Timer, loop_timer
from .lane import Lane, Load
from .refusals import queue_full, waited_too_long
from .ticket import Place, Ticket

POLL_S = 0.005
BATCH_POLL_S = 0.02  # while only batch requests wait: answers of their own relay let them in at once
MOST_PREEMPTIONS = 3  # of one request: then it stays
HELD_TICKS = 2  # polls for which a free slot is left to another relay, which looks for it as often
# Looking up a member of an enumeration takes longer than a global name.
_BATCH, _INTERACTIVE = Priority.BATCH, Priority.INTERACTIVE
_OUTSIDE, _WAITING, _GRANTED, _INSIDE = Place


class Admission:
    """The queues of one relay.

    Classes go in strict order: interactive, default, batch, but for a small share (`PASSED_OVER`). In a class, tenants
    share fairly (`FairQueue`). Part of the slots is for interactive requests only. Where a request that is more urgent
    than batch would wait, the batch request that was let in last and has no byte of its answer yet gives way: its
    `on_preempt` is called, which must end the attempt and take it off the board before it returns. It is then first in
    its queue again, with its old deadline; its coroutine awaits `enter` again. After `MOST_PREEMPTIONS` it stays.

    How to use it. Nothing may be awaited between the end of `try_enter` or `enter` and adding the request to the board,
    nor between taking it off the board and `leave`:

        if not admission.try_enter(ticket):
            await admission.enter(ticket)  # raises Refused
        try:
            board, send, ...
            admission.began(ticket)  # at the first byte; only batch needs it
            ...
        finally:
            take off the board
            admission.leave(ticket)

    Args:
        room: how much the workers of a lane take and have.
        queue: requests of one class and lane that may wait here: this relay's part of `queue` of [router].
        timeout_s: how long one may wait.
        reserved: part of the slots that only interactive requests may use.
        clock: monotonic seconds.
        call_later: of the event loop; by default that of the running one. Used only while somebody waits, because slots
            become free in other relays too.
        neighbours: the other relays; None if there are none.
    """

    def __init__(
        self,
        room: Room,
        *,
        queue: int,
        timeout_s: float,
        reserved: float,
        clock: Callable[[], float] = time.monotonic,
        call_later: CallLater | None = None,
        neighbours: Neighbours | None = None,
    ) -> None:
        self._room, self._queue, self._timeout_s, self._reserved = room, queue, timeout_s, reserved
        self._clock, self._neighbours = clock, neighbours
        self._call_later = call_later or loop_timer
        self._lanes: dict[Hashable, Lane] = {}
        self._crowded: dict[Hashable, Lane] = {}  # in which somebody waits
        self._timer: Timer | None = None
        self._is_slow = False  # it polls for batch requests only

    def try_enter(self, ticket: Ticket) -> bool:
        """Let a request in if nobody waits and a slot is free."""
        key, priority = ticket.lane, ticket.priority
        lane = self._lanes.get(key)
        if lane is None:
            lane = self._lanes[key] = Lane(self._reserved, self._clock())
        if lane.waiting:
            return False
        slots, in_flight = self._room(key)
        in_flight += lane.in_transit
        if not lane.admits(priority, slots, in_flight):
            return False
        elsewhere = self._neighbours.waiting(key) if self._neighbours is not None else None
        if elsewhere is not None and lane.is_others_turn(priority, elsewhere, slots, in_flight):
            return False
        lane.inside += 1
        if priority is _INTERACTIVE:
            lane.interactive += 1
        self._settle(lane, ticket)
        return True

    async def enter(self, ticket: Ticket) -> None:
        """Wait until the request may be sent. Raises Refused; if cancelled, it waits no more."""
        if ticket.future is None:
            self._join(ticket)
        assert ticket.future is not None, "it waits"
        try:
            await ticket.future
        except asyncio.CancelledError:
            self.leave(ticket)
            raise
        finally:
            ticket.future = None
        lane = self._lanes[ticket.lane]
        lane.in_transit -= 1
        if ticket.deadline is not None:
            ticket.left_s = max(0.0, ticket.deadline - self._clock())
        self._settle(lane, ticket)

    def is_full(self, tenant: str, weight: float, priority: Priority) -> Refused | None:
        """What a request that comes now would be told in every lane: so its body need not be read. None: nothing."""
        if not self._crowded or len(self._crowded) < len(self._lanes):
            return None
        lanes = list(self._crowded.values())
        if all(self._has_no_place(lane, tenant, weight, priority) for lane in lanes):
            return queue_full(lanes[0], priority, self._clock(), self._timeout_s)
        return None

    def began(self, ticket: Ticket) -> None:
        """Note that the client has got something: the request is not preempted any more."""
        if ticket.priority is _BATCH:
            self._lanes[ticket.lane].preemptable.pop(ticket, None)

    def computes(self, ticket: Ticket) -> None:
        """Note that a worker has begun to answer the request, and has not refused it."""
        if ticket.place is _INSIDE and not ticket.is_computed:
            ticket.is_computed = True
            self._lanes[ticket.lane].computed += 1

    def leave(self, ticket: Ticket) -> None:
        """Forget a request, wherever it is; one that is outside already is left alone."""
        place, ticket.place, ticket.future = ticket.place, _OUTSIDE, None
        if place is _OUTSIDE:
            return
        lane = self._lanes[ticket.lane]
        if place is _WAITING:
            self._unqueue(lane, ticket)
            self._publish(ticket.lane, lane)
            return
        lane.inside -= 1
        if ticket.is_computed:
            ticket.is_computed, lane.was_used = False, True
            lane.computed -= 1
        if place is _GRANTED:
            lane.in_transit -= 1
        else:
            lane.rate.note(self._clock())
        if ticket.priority is _INTERACTIVE:
            lane.interactive -= 1
        elif ticket.priority is _BATCH:
            lane.preemptable.pop(ticket, None)
        if lane.waiting:
            self._let_in(ticket.lane, lane)

    def step_out(self, ticket: Ticket) -> None:
        """Forget a request that may come back: then it goes before others, with what is left of its time to wait."""
        left_s = self._timeout_s if ticket.left_s is None else ticket.left_s
        self.leave(ticket)
        ticket.deadline = self._clock() + left_s

    @contextmanager
    def aside(self, ticket: Ticket) -> Iterator[None]:
        """Count a request that has stepped out as waiting."""
        aside = self._lanes[ticket.lane].aside
        aside[ticket] = None
        try:
            yield
        finally:
            del aside[ticket]

    def refuse_where(self, is_hopeless: Callable[[Hashable], bool]) -> None:
        """Refuse all that wait in lanes for which no worker will come."""
        now = self._clock()
        for key, lane in list(self._crowded.items()):
            if is_hopeless(key):
                for ticket in self._unqueued(key, lane):
                    self._refuse(ticket, waited_too_long(lane, ticket.priority, now, self._timeout_s))

    def refuse_all(self, refusal: Callable[[], Refused]) -> None:
        """Refuse all that wait."""
        for key, lane in list(self._crowded.items()):
            for ticket in self._unqueued(key, lane):
                self._refuse(ticket, refusal())

    def poke(self) -> None:
        """Let in who may enter now: workers have come, or requests of other relays have left."""
        self._look(is_tick=False)

    def _look(self, *, is_tick: bool) -> None:
        now = self._clock()
        lanes = self._crowded if self._neighbours is None else self._lanes
        for key, lane in list(lanes.items()):
            self._expire(lane, now)
            if self._neighbours is not None:
                self._give_way_to_others(key, lane, self._neighbours)
            self._let_in(key, lane, is_tick=is_tick)

    def waiting(self) -> dict[str, int]:
        """Requests that wait, by class."""
        lanes = self._crowded.values()
        return {priority.name.lower(): sum(len(lane.queues[priority]) for lane in lanes) for priority in Priority}

    def loads(self) -> dict[Hashable, Load]:
        """What requests ask of the workers, by lane. To be called about once a second, by one caller."""
        now = self._clock()
        return {key: lane.load(now, self._timeout_s) for key, lane in self._lanes.items()}

    def close(self) -> None:
        """Stop the timer. Those who wait go on waiting until they are cancelled."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _join(self, ticket: Ticket) -> None:
        """Queue a request; perhaps it may enter at once. Raises Refused where there is no room for it."""
        assert ticket.place is _OUTSIDE, "a request enters once, and again only after it was preempted"
        lane, now = self._lanes[ticket.lane], self._clock()
        if not lane.waiting:
            lane.rate.begin(now)
        if ticket.deadline is None:
            self._make_place(lane, ticket, now)
            ticket.deadline = now + self._timeout_s
            lane.queues[ticket.priority].push(ticket)
        else:  # it was inside before
            lane.queues[ticket.priority].push_front(ticket)
        self._wait(lane, ticket)
        self._let_in(ticket.lane, lane)

    def _wait(self, lane: Lane, ticket: Ticket) -> None:
        ticket.place, ticket.future = _WAITING, asyncio.get_running_loop().create_future()
        lane.waiting += 1
        self._crowded[ticket.lane] = lane
        is_slow = ticket.priority is _BATCH
        if self._timer is not None and self._is_slow and not is_slow:
            self.close()
        if self._timer is None:
            self._poll_later(is_slow)

    def _poll_later(self, is_slow: bool) -> None:
        self._is_slow = is_slow
        self._timer = self._call_later(BATCH_POLL_S if is_slow else POLL_S, self._tick)

    def _make_place(self, lane: Lane, ticket: Ticket, now: float) -> None:
        """See that there is room in the queue. The tenant with most requests in it is who is refused."""
        queue = lane.queues[ticket.priority]
        if len(queue) < self._queue or self._may_enter_alone(lane, ticket):
            return
        if self._has_no_place(lane, ticket.tenant, ticket.weight, ticket.priority):
            raise queue_full(lane, ticket.priority, now, self._timeout_s)
        victim = queue.newest_of_largest()
        assert victim is not None
        self._unqueue(lane, victim)
        self._refuse(victim, queue_full(lane, victim.priority, now, self._timeout_s))

    def _has_no_place(self, lane: Lane, tenant: str, weight: float, priority: Priority) -> bool:
        """Whether the queue is full, and no tenant has more requests in it than this one."""
        queue = lane.queues[priority]
        if len(queue) < self._queue:
            return False
        victim, mine = queue.newest_of_largest(), queue.weighted_length(tenant, weight) + 1 / weight
        return victim is None or queue.weighted_length(victim.tenant, victim.weight) <= mine

    def _may_enter_alone(self, lane: Lane, ticket: Ticket) -> bool:
        """Whether a request need not really wait, so that a full queue, or one of length 0, does not concern it."""
        if any(lane.queues[priority] for priority in Priority if priority <= ticket.priority):
            return False
        slots, in_flight = self._room(ticket.lane)
        in_flight += lane.in_transit
        if ticket.priority is not _BATCH:
            in_flight -= len(lane.preemptable)
        return lane.admits(ticket.priority, slots, in_flight)

    def _let_in(self, key: Hashable, lane: Lane, *, is_tick: bool = False) -> None:
        slots, in_flight = self._room(key)
        is_held = False
        while lane.waiting and not is_held:
            priority = lane.next_class(slots, in_flight + lane.in_transit)
            if priority is not None:
                is_held = self._is_held(key, lane, priority, slots, in_flight + lane.in_transit)
                if not is_held:
                    self._grant(lane, priority)
            elif lane.preemption_helps(slots, in_flight + lane.in_transit):
                self._preempt(lane)
                slots, in_flight = self._room(key)
            else:
                break
        if is_tick:
            lane.held_ticks = lane.held_ticks + 1 if is_held else 0
        if not lane.waiting:
            self._crowded.pop(key, None)
        self._publish(key, lane)

    def _is_held(self, key: Hashable, lane: Lane, priority: Priority, slots: int, in_flight: int) -> bool:
        """Whether a free slot is left to another relay for now."""
        if self._neighbours is None or lane.held_ticks >= HELD_TICKS or lane.is_owed(priority):
            return False
        elsewhere = self._neighbours.waiting(key)
        return elsewhere is not None and lane.is_others_turn(priority, elsewhere, slots, in_flight)

    def _give_way_to_others(self, key: Hashable, lane: Lane, neighbours: Neighbours) -> None:
        """Preempt batch for more urgent requests that wait in other relays."""
        if not lane.preemptable:
            return
        elsewhere = neighbours.waiting(key) or ()
        slots, in_flight = self._room(key)
        for _ in range(min(sum(elsewhere[:_BATCH]), len(lane.preemptable), in_flight - slots + 1)):
            self._preempt(lane)

    def _publish(self, key: Hashable, lane: Lane) -> None:
        if self._neighbours is not None:
            self._neighbours.publish(key, lane.counts())

    def _grant(self, lane: Lane, priority: Priority) -> None:
        # Who enters out of turn would be the first to be preempted, and never be answered.
        stays = priority is _BATCH and lane.is_owed(priority)
        ticket = lane.pop(priority)
        ticket.preemptions = MOST_PREEMPTIONS if stays else ticket.preemptions
        ticket.place = _GRANTED
        lane.in_transit += 1
        lane.inside += 1
        if priority is _INTERACTIVE:
            lane.interactive += 1
        assert ticket.future is not None
        if not ticket.future.done():  # else it is being cancelled, and leaves in a moment
            ticket.future.set_result(None)

    def _preempt(self, lane: Lane) -> None:
        ticket, _ = lane.preemptable.popitem()
        lane.inside -= 1
        ticket.preemptions += 1
        if ticket.deadline is None:
            ticket.deadline = self._clock() + self._timeout_s
        self._wait(lane, ticket)
        lane.queues[_BATCH].push_front(ticket)
        assert ticket.on_preempt is not None
        ticket.on_preempt()

    def _settle(self, lane: Lane, ticket: Ticket) -> None:
        ticket.place = _INSIDE
        if ticket.priority is _BATCH and ticket.on_preempt is not None and ticket.preemptions < MOST_PREEMPTIONS:
            lane.preemptable[ticket] = None

    def _unqueue(self, lane: Lane, ticket: Ticket) -> None:
        lane.queues[ticket.priority].remove(ticket)
        lane.waiting -= 1
        if not lane.waiting:
            self._crowded.pop(ticket.lane, None)

    def _expire(self, lane: Lane, now: float) -> None:
        for queue in lane.queues:
            for ticket in queue.expired(now):
                self._unqueue(lane, ticket)
                self._refuse(ticket, waited_too_long(lane, ticket.priority, now, self._timeout_s))

    def _unqueued(self, key: Hashable, lane: Lane) -> list[Ticket]:
        """Take all out of a lane's queues."""
        tickets = [ticket for queue in lane.queues for ticket in queue]
        for ticket in tickets:
            self._unqueue(lane, ticket)
        self._publish(key, lane)
        return tickets

    def _refuse(self, ticket: Ticket, refusal: Refused) -> None:
        future, ticket.place = ticket.future, _OUTSIDE
        assert future is not None
        if not future.done():
            future.set_exception(refusal)
            future.exception()  # noted: a preempted request may be cancelled before it comes to wait

    def _tick(self) -> None:
        self._timer = None
        self._look(is_tick=True)
        if self._crowded and self._timer is None:
            lanes = self._crowded.values()
            self._poll_later(all(len(lane.queues[_BATCH]) == lane.waiting for lane in lanes))
