"""Whatever comes, goes, hangs up or is preempted: what admission promises holds."""

import asyncio

from hypothesis import given, settings
from hypothesis import strategies as st

from slurminfer.router.admission.fair_queue import FairQueue
from slurminfer.router.admission.ticket import Ticket
from slurminfer.router.tenants.tenant import Priority

from .harness import World, settle

TENANTS = ("a", "b", "c")
NUMBERS = st.integers(0, 30)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("start"), st.sampled_from(TENANTS), st.sampled_from(list(Priority)), st.integers(1, 50)),
        st.tuples(st.sampled_from(["finish", "finish", "finish", "cancel", "began"]), NUMBERS),
        st.tuples(st.just("slots"), st.integers(0, 3)),
        st.tuples(st.just("elsewhere"), st.integers(0, 3)),
        st.tuples(st.just("advance"), st.sampled_from([0.005, 1.0, 4.0])),
    ),
    min_size=15,
    max_size=60,
)


class CheckedWorld(World):
    """Checks at every entry that it was allowed, and that nobody was passed who goes first."""

    def __init__(self, slots, reserved):
        super().__init__(slots, queue=8, timeout_s=10, reserved=reserved)
        self.reserved = reserved

    def entering(self, request):
        slots, in_flight = self.room("m")
        assert in_flight < slots
        if request.ticket.priority is not Priority.INTERACTIVE:
            interactive = sum(other.inside and other.ticket.priority is Priority.INTERACTIVE for other in self.requests)
            assert in_flight - interactive < max(1, slots - int(slots * self.reserved))
        same_class = [other for other in self.requests if other.ticket.priority is request.ticket.priority]
        waiting = [other for other in same_class if other.waits and not other.task.cancelling()]
        if not request.preempted:
            assert not any(other.preempted for other in waiting), "who was preempted goes first"
        earlier = self.requests[: self.requests.index(request)]
        assert not any(other in waiting and other.ticket.tenant == request.ticket.tenant for other in earlier)


async def take(world, step):
    kind, *rest = step
    if kind == "start":
        tenant, priority, cost = rest
        await world.start(tenant, priority, cost=cost)
    elif kind in ("slots", "elsewhere"):
        getattr(world, kind)["m"] = rest[0]
        world.admission.poke()
        await settle()
    elif kind == "advance":
        await world.advance(rest[0])
    elif world.requests:
        request = world.requests[rest[0] % len(world.requests)]
        if kind == "cancel":
            await request.cancel()
        elif request.inside and kind == "finish":
            await request.finish()
        elif request.inside:
            world.admission.began(request.ticket)


def check(world):
    """Every request is in one place, and nobody waits without a reason."""
    for request in world.requests:
        assert request.task.done() == (not request.inside and not request.waits)
        assert not request.task.done() or request.task.cancelled() or request.done or request.refused
    slots, in_flight = world.room("m")
    waiting = [request for request in world.requests if request.waits]
    if any(request.ticket.priority is Priority.INTERACTIVE for request in waiting):
        assert in_flight >= slots
    assert sum(world.admission.waiting().values()) == len(waiting)
    assert bool(waiting) <= bool(world.timers)


async def run_out(world):
    """Let everybody who is left be answered."""
    world.slots["m"], world.elsewhere["m"] = 4, 0
    world.admission.poke()
    await settle()
    while any(request.inside for request in world.requests):
        for request in world.requests:
            if request.inside:
                await request.finish()
    assert all(request.task.done() for request in world.requests)
    (lane,) = world.admission._lanes.values()
    assert (lane.waiting, lane.interactive, lane.in_transit, len(lane.preemptable)) == (0, 0, 0, 0)


@settings(max_examples=150, deadline=None)
@given(STEPS, st.integers(0, 3), st.sampled_from([0.0, 0.3, 0.9]))
def test_admission_keeps_its_promises(steps, slots, reserved):
    async def run():
        world = CheckedWorld(slots, reserved)
        await world.start()
        for step in steps:
            await take(world, step)
            check(world)
        await run_out(world)

    asyncio.run(run())


@settings(deadline=None)
@given(
    st.lists(st.integers(1, 8), min_size=2, max_size=5),
    st.lists(st.integers(1, 4000), min_size=30, max_size=30),
)
def test_shares_of_tenants_that_always_wait_converge_to_their_weights(weights, costs):
    """At any time, what two tenants have got differs, relative to their weights, by one request of each at most."""
    queue, got = FairQueue(), dict.fromkeys(range(len(weights)), 0.0)
    for number, weight in enumerate(weights):
        for at in range(len(costs)):
            queue.push(Ticket(str(number), "m", Priority.DEFAULT, costs[(at * 7 + number) % len(costs)], weight))
    bound = [max(costs) / weight for weight in weights]
    left = dict.fromkeys(got, len(costs))
    while min(left.values()) > 0:
        ticket = queue.pop()
        number = int(ticket.tenant)
        left[number] -= 1
        got[number] += ticket.cost / ticket.weight
        for one in got:
            for other in got:
                assert got[one] - got[other] <= bound[one] + bound[other] + 1e-6


@given(st.lists(st.tuples(st.sampled_from(["push", "pop", "remove"]), st.sampled_from(TENANTS), NUMBERS), max_size=80))
def test_a_queue_loses_nothing_and_is_first_in_first_out_for_each_tenant(steps):
    queue, waiting = FairQueue(), []
    for kind, tenant, number in steps:
        if kind == "push":
            waiting.append(Ticket(tenant, "m", Priority.DEFAULT, number))
            queue.push(waiting[-1])
        elif waiting and kind == "pop":
            ticket = queue.pop()
            assert ticket is next(other for other in waiting if other.tenant == ticket.tenant)
            waiting.remove(ticket)
        elif waiting:
            queue.remove(waiting.pop(number % len(waiting)))
        assert list(queue) == waiting


def test_a_tenant_that_was_away_has_saved_up_nothing():
    queue = FairQueue()
    for _ in range(6):
        queue.push(Ticket("busy", "m", Priority.DEFAULT, 10))
    for _ in range(3):
        queue.pop()
    for _ in range(3):
        queue.push(Ticket("new", "m", Priority.DEFAULT, 10))
    assert sorted(queue.pop().tenant for _ in range(4)) == ["busy", "busy", "new", "new"]


def test_a_tenant_that_keeps_one_request_waiting_is_charged_for_the_last_one():
    queue = FairQueue()
    for _ in range(20):
        queue.push(Ticket("steady", "m", Priority.DEFAULT, 1))
    queue.push(Ticket("large", "m", Priority.DEFAULT, 10))
    order = [queue.pop().tenant for _ in range(2)]
    queue.push(Ticket("large", "m", Priority.DEFAULT, 10))
    order += [queue.pop().tenant for _ in range(12)]
    assert order.count("large") == 2
    assert order[2:10] == ["steady"] * 8
