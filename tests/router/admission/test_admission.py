"""Admission: who enters, who waits, who gives way, who is refused."""

import asyncio
import functools
import math

import pytest

from slurminfer.router.admission.admission import BATCH_POLL_S, MOST_PREEMPTIONS, POLL_S
from slurminfer.router.admission.lane import PASSED_OVER, Load
from slurminfer.router.tenants.tenant import Priority

from .harness import World, settle

INTERACTIVE, DEFAULT, BATCH = Priority


def in_a_loop(test):
    """Run an async test."""

    @functools.wraps(test)
    def run(*args, **words):
        asyncio.run(test(*args, **words))

    return run


@in_a_loop
async def test_a_request_enters_at_once_while_a_slot_is_free_and_no_timer_runs():
    world = World(slots=2)
    one, two = await world.start(), await world.start()
    assert one.inside
    assert two.inside
    assert world.timers == []
    three = await world.start()
    assert three.waits
    assert len(world.timers) == 1
    await one.finish()
    assert three.inside
    await world.advance(POLL_S)
    assert world.timers == []


@in_a_loop
async def test_a_slot_that_another_relay_frees_is_found_by_the_timer():
    world = World(slots=2)
    world.elsewhere["m"] = 2
    request = await world.start()
    await world.advance(POLL_S)
    assert request.waits
    world.elsewhere["m"] = 1
    await world.advance(POLL_S)
    assert request.inside


@in_a_loop
async def test_the_timer_is_slower_while_only_batch_requests_wait():
    world = World(slots=0)
    batch = await world.start(priority=BATCH)
    world.slots["m"] = 1
    await world.advance(POLL_S)
    assert batch.waits and len(world.timers) == 1
    await world.advance(BATCH_POLL_S)
    assert batch.inside
    batch = await world.start(priority=BATCH)
    urgent = await world.start()
    world.slots["m"] = 2
    await world.advance(POLL_S)
    assert urgent.inside and batch.waits


@in_a_loop
async def test_requests_for_one_model_do_not_wait_behind_those_for_another():
    world = World(slots=0)
    world.slots["other"] = 1
    waiting = await world.start()
    other = await world.start(lane="other")
    assert waiting.waits
    assert other.inside


@in_a_loop
async def test_classes_go_in_strict_order():
    world = World(slots=1)
    first = await world.start()
    batch = await world.start(priority=BATCH)
    default = await world.start(priority=DEFAULT)
    interactive = await world.start(priority=INTERACTIVE)
    await first.finish()
    assert [interactive.inside, default.inside, batch.inside] == [True, False, False]
    await interactive.finish()
    assert [default.inside, batch.inside] == [True, False]
    await default.finish()
    assert batch.inside


@in_a_loop
async def test_batch_gets_a_small_share_while_more_urgent_requests_never_end():
    world = World(slots=1)
    inside = await world.start(priority=INTERACTIVE)
    batch = await world.start(priority=BATCH)
    passed = 0
    while not batch.inside:
        following = await world.start(priority=INTERACTIVE)
        await inside.finish()
        passed, inside = passed + following.inside, following
        assert passed <= PASSED_OVER
    assert passed == PASSED_OVER
    assert batch.preempted == 0, "its turn is not taken away again"


@in_a_loop
async def test_reserved_slots_are_for_interactive_requests_only():
    world = World(slots=4, reserved=0.5)
    ordinary = [await world.start(priority=priority) for priority in (DEFAULT, DEFAULT, BATCH)]
    assert [request.inside for request in ordinary] == [True, True, False]
    interactive = [await world.start(priority=INTERACTIVE) for _ in range(3)]
    assert [request.inside for request in interactive] == [True, True, False]
    await interactive[0].finish()
    assert interactive[2].inside
    assert ordinary[2].waits


@in_a_loop
async def test_one_slot_is_never_reserved_altogether():
    world = World(slots=1, reserved=0.9)
    assert (await world.start(priority=BATCH)).inside


@in_a_loop
async def test_the_latest_batch_request_without_a_byte_gives_way_and_comes_back_first():
    world = World(slots=3)
    early, answered, late = [await world.start(priority=BATCH) for _ in range(3)]
    world.admission.began(answered.ticket)
    behind = await world.start(tenant="b", priority=BATCH)
    urgent = await world.start(priority=INTERACTIVE)
    assert urgent.inside
    assert [early.inside, answered.inside, late.inside] == [True, True, False]
    also_urgent = await world.start(priority=DEFAULT)
    assert also_urgent.inside
    assert early.waits
    no_more = await world.start(priority=INTERACTIVE)
    assert no_more.waits, "who has a byte of its answer stays"
    for done in (urgent, no_more, also_urgent):
        await done.finish()
    assert [early.inside, late.inside, behind.inside] == [True, True, False]
    assert world.most["m"] == 3


@in_a_loop
async def test_the_deadline_of_a_preempted_request_goes_on():
    world = World(slots=1, timeout_s=10)
    first = await world.start()
    batch = await world.start(priority=BATCH)
    await world.advance(6)
    await first.finish()
    assert batch.inside
    await world.start(priority=INTERACTIVE)
    assert batch.waits
    await world.advance(4)
    assert batch.refused.status == 503


@in_a_loop
async def test_a_request_that_is_preempted_before_it_ever_waited_has_a_deadline():
    world = World(slots=1, timeout_s=10)
    batch = await world.start(priority=BATCH)
    await world.start(priority=INTERACTIVE)
    await world.advance(10)
    assert batch.refused.status == 503


@in_a_loop
async def test_a_request_is_preempted_a_few_times_only():
    world = World(slots=1)
    batch = await world.start(priority=BATCH)
    for _ in range(MOST_PREEMPTIONS):
        urgent = await world.start(priority=INTERACTIVE)
        assert urgent.inside
        await urgent.finish()
        assert batch.inside
    assert (await world.start(priority=INTERACTIVE)).waits
    assert batch.inside
    assert batch.preempted == MOST_PREEMPTIONS


@in_a_loop
async def test_nobody_is_preempted_where_that_does_not_help():
    world = World(slots=2)
    batch = await world.start(priority=BATCH)
    world.slots["m"] = 0
    assert (await world.start(priority=INTERACTIVE)).waits
    assert batch.inside
    assert batch.preempted == 0


@in_a_loop
async def test_a_full_queue_refuses_and_tells_when_to_come_back():
    world = World(slots=1, queue=20)
    inside = await world.start()
    waiting = [await world.start() for _ in range(20)]
    for following in waiting[:10]:
        await world.advance(2)
        await inside.finish()
        inside = following
    for _ in range(10):
        await world.start()
    refused = (await world.start()).refused
    assert (refused.status, refused.code) == (429, "queue_full")
    assert 35 <= refused.retry_after <= 45, "20 wait, one leaves every 2 s"
    assert (await world.start(priority=INTERACTIVE)).waits, "each class has a queue of its own"


@in_a_loop
async def test_the_tenant_that_fills_the_queue_is_who_is_refused():
    world = World(slots=1, queue=3)
    await world.start()
    hogs = [await world.start(tenant="hog") for _ in range(3)]
    guest = await world.start(tenant="guest")
    assert guest.waits
    assert [hog.waits for hog in hogs] == [True, True, False]
    assert hogs[2].refused.status == 429
    assert (await world.start(tenant="hog")).refused.status == 429


@in_a_loop
async def test_without_a_queue_requests_enter_or_are_refused():
    world = World(slots=1, queue=0)
    batch = await world.start(priority=BATCH)
    assert (await world.start(priority=BATCH)).refused.status == 429
    assert (await world.start(priority=INTERACTIVE)).inside
    assert batch.waits


@in_a_loop
async def test_a_request_that_has_waited_too_long_is_refused():
    world = World(slots=1, timeout_s=10)
    inside = await world.start()
    early = await world.start()
    await world.advance(5)
    late = await world.start()
    await world.advance(5)
    assert (early.refused.status, early.refused.code) == (503, "queue_timeout")
    assert 1 <= early.refused.retry_after <= 10
    assert late.waits
    await inside.finish()
    assert late.inside


@in_a_loop
async def test_a_client_that_hangs_up_while_it_waits_is_forgotten_at_once():
    world = World(slots=1)
    inside = await world.start()
    gone, next_one = await world.start(), await world.start()
    await gone.cancel()
    assert world.admission.waiting() == {"interactive": 0, "default": 1, "batch": 0}
    await inside.finish()
    assert next_one.inside


@in_a_loop
async def test_a_slot_that_was_granted_to_a_client_that_hangs_up_goes_to_the_next():
    world = World(slots=1)
    inside = await world.start()
    gone, next_one = await world.start(), await world.start()
    gone.task.cancel()
    inside.done = True
    inside.wake.set()
    await settle()
    assert next_one.inside
    assert world.most["m"] == 1


@in_a_loop
async def test_a_preempted_client_may_hang_up():
    world = World(slots=1)
    batch = await world.start(priority=BATCH)
    urgent = await world.start(priority=INTERACTIVE)
    await batch.cancel()
    assert world.admission.waiting()["batch"] == 0
    await urgent.finish()
    assert (await world.start()).inside


@in_a_loop
async def test_the_timer_ends_with_the_relay():
    world = World(slots=0)
    request = await world.start()
    world.admission.close()
    await world.advance(POLL_S)
    assert world.timers == []
    await request.cancel()


@pytest.mark.parametrize("slots", [1, 3])
@in_a_loop
async def test_many_granted_at_once_never_exceed_the_slots(slots):
    world = World(slots=0)
    for _ in range(8):
        await world.start()
    world.slots["m"] = slots
    world.admission.poke()
    await settle()
    assert world.board["m"] == world.most["m"] == slots


@in_a_loop
async def test_a_request_that_steps_out_comes_back_before_others_with_what_is_left_of_its_time():
    world = World(slots=1, timeout_s=100.0)
    holder = await world.start()
    first, second = await world.start(), await world.start()
    await world.advance(60.0)
    await holder.finish()
    assert first.inside
    await world.advance(1000.0)  # at a worker: that is no time in the queue
    assert second.refused, "it has waited too long"
    third = await world.start()
    world.slots["m"] = 0
    first._off()
    world.admission.step_out(first.ticket)
    assert first.ticket.deadline == world.now + 40.0
    first.wake.set()  # it enters again
    await settle()
    assert first.waits and third.waits
    world.slots["m"] = 1
    await world.advance(POLL_S)
    assert first.inside and third.waits


@in_a_loop
async def test_who_waits_in_vain_is_refused():
    world = World(slots=0)
    world.slots["other"] = 0
    one, other = await world.start(), await world.start(lane="other")
    world.admission.refuse_where(lambda lane: lane == "other")
    await settle()
    assert one.waits and other.refused.code == "queue_timeout"
    assert world.admission.waiting()["default"] == 1


@in_a_loop
async def test_the_load_of_a_lane_says_who_waits_for_how_long_and_since_when_nobody_came():
    world = World(slots=1, timeout_s=60.0)
    one = await world.start()
    world.now = 5.0
    two = await world.start()
    world.now = 8.0
    three = await world.start()
    world.now = 9.0
    assert world.admission.loads() == {"m": Load(2, 4.0, 0.0)}
    for request in (one, two, three):
        await request.finish()
    world.now = 12.0
    assert world.admission.loads() == {"m": Load(0, 0.0, 3.0)}


@in_a_loop
async def test_a_lane_is_used_by_what_workers_compute_and_not_by_what_they_refuse():
    world = World(slots=1, timeout_s=60.0)
    world.now = 5.0
    refused = await world.start()
    assert world.admission.loads() == {"m": Load(0, 0.0, math.inf)}
    await refused.finish()
    assert world.admission.loads() == {"m": Load(0, 0.0, math.inf)}
    answered = await world.start()
    world.admission.computes(answered.ticket)
    world.now = 13.0
    assert world.admission.loads() == {"m": Load(0, 0.0, 0.0)}
    await answered.finish()
    world.now = 14.0
    assert world.admission.loads() == {"m": Load(0, 0.0, 0.0)}
    world.now = 15.0
    assert world.admission.loads() == {"m": Load(0, 0.0, 1.0)}


@in_a_loop
async def test_a_request_that_has_stepped_out_to_wait_for_another_worker_counts_as_waiting():
    world = World(slots=1, timeout_s=60.0)
    request = await world.start()
    world.now = 10.0
    world.admission.step_out(request.ticket)
    with world.admission.aside(request.ticket):
        world.now = 14.0
        assert world.admission.loads() == {"m": Load(1, 4.0, 0.0)}
    assert world.admission.loads()["m"].waiting == 0


@in_a_loop
async def test_batch_requests_that_wait_are_counted_apart():
    world = World(slots=0, timeout_s=60.0)
    await world.start(priority=BATCH)
    world.now = 5.0
    await world.start(priority=BATCH)
    await world.start(priority=INTERACTIVE)
    world.now = 9.0
    assert world.admission.loads() == {"m": Load(1, 4.0, 0.0, 2, 9.0)}
