"""Two relays before the same workers: neither takes what is the other's turn, and no slot stays empty for long."""

import asyncio

from hypothesis import given, settings
from hypothesis import strategies as st

from slurminfer.router.admission.admission import HELD_TICKS, POLL_S
from slurminfer.router.tenants.tenant import Priority

from .harness import Queues, World

INTERACTIVE, DEFAULT, BATCH = Priority


class Two:
    """Two relays that see each other's requests in flight and queues."""

    def __init__(self, slots, kind=World):
        queues = Queues()
        self.relays = [kind(slots, neighbours=queues.of(index)) for index in (0, 1)]
        for index, relay in enumerate(self.relays):
            relay.elsewhere = self.relays[1 - index].board

    @property
    def in_flight(self):
        return sum(relay.board["m"] for relay in self.relays)

    async def tick(self):
        for relay in reversed(self.relays):
            await relay.advance(POLL_S)


def test_a_busy_relay_does_not_keep_all_slots_to_itself():
    async def run():
        two = Two(slots=10)
        busy, other = two.relays
        crowd = [await busy.start() for _ in range(60)]
        guest = await other.start()
        await two.tick()
        assert guest.waits
        for request in crowd[:2]:  # one in each tick
            await request.finish()
            await two.tick()
        assert guest.inside
        assert two.in_flight == 10

    asyncio.run(run())


def test_a_more_urgent_request_goes_first_wherever_it_waits():
    async def run():
        two = Two(slots=2)
        here, there = two.relays
        inside = [await here.start() for _ in range(2)]
        waiting = await here.start(priority=DEFAULT)
        urgent = await there.start(priority=INTERACTIVE)
        late = await here.start(priority=BATCH)
        await inside[0].finish()
        assert waiting.waits
        await two.tick()
        assert urgent.inside
        await inside[1].finish()
        assert waiting.inside
        assert late.waits

    asyncio.run(run())


def test_a_newcomer_does_not_take_the_slot_that_is_left_to_another_relay():
    async def run():
        two = Two(slots=1)
        here, there = two.relays
        inside = await here.start()
        urgent = await there.start(priority=INTERACTIVE)
        await inside.finish()
        newcomer = await here.start()
        assert newcomer.waits
        await two.tick()
        assert urgent.inside

    asyncio.run(run())


def test_batch_gives_way_to_urgent_requests_of_another_relay():
    async def run():
        two = Two(slots=2)
        here, there = two.relays
        batch = [await here.start(priority=BATCH) for _ in range(2)]
        urgent = await there.start(priority=INTERACTIVE)
        here.admission.poke()
        await two.tick()
        assert urgent.inside
        assert [request.inside for request in batch] == [True, False]

    asyncio.run(run())


def test_a_slot_that_the_other_relay_does_not_take_is_used_after_a_moment():
    async def run():
        two = Two(slots=1)
        here, there = two.relays
        inside = await here.start()
        there.slots["m"] = 0  # such as one that knows no worker yet
        urgent = await there.start(priority=INTERACTIVE)
        waiting = await here.start()
        await inside.finish()
        for _ in range(HELD_TICKS):
            assert waiting.waits
            await two.tick()
        await two.tick()
        assert waiting.inside
        assert urgent.waits
        await urgent.cancel()

    asyncio.run(run())


class CheckedWorld(World):
    """Checks at every entry that a slot was free."""

    def entering(self, request):
        slots, in_flight = self.room("m")
        assert in_flight < slots


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("start"), st.integers(0, 1), st.sampled_from(list(Priority))),
        st.tuples(st.sampled_from(["finish", "finish", "cancel", "began"]), st.integers(0, 1), st.integers(0, 30)),
        st.tuples(st.just("tick"), st.just(0), st.just(0)),
    ),
    min_size=10,
    max_size=60,
)


async def take(two, step):
    kind, side, what = step
    relay = two.relays[side]
    if kind == "start":
        await relay.start(priority=what)
    elif kind == "tick":
        await two.tick()
    elif relay.requests:
        request = relay.requests[what % len(relay.requests)]
        if kind == "cancel":
            await request.cancel()
        elif request.inside and kind == "finish":
            await request.finish()
        elif request.inside:
            relay.admission.began(request.ticket)


@settings(max_examples=60, deadline=None)
@given(STEPS, st.integers(1, 3))
def test_whatever_two_relays_do_slots_are_never_overbooked_and_everybody_gets_one(steps, slots):
    async def run():
        two = Two(slots, CheckedWorld)
        for step in steps:
            await take(two, step)
        everybody = [request for relay in two.relays for request in relay.requests]
        for _ in range((HELD_TICKS + 3) * (len(everybody) + 1)):
            await two.tick()
            for request in everybody:
                if request.inside:
                    await request.finish()
        assert all(request.task.cancelled() or request.done for request in everybody)
        for relay in two.relays:
            for lane in relay.admission._lanes.values():
                assert (lane.waiting, lane.inside, lane.in_transit) == (0, 0, 0)

    asyncio.run(run())
