"""Requests whose workers die or stop under them, and requests that are the reason."""

import asyncio
from contextlib import nullcontext

import aiohttp
import openai
import pytest

from slurminfer.core.records import WorkerState
from slurminfer.router.fleet import registry, worker
from slurminfer.router.fleet.worker import Worker
from slurminfer.router.relay.beginning import Beginning
from slurminfer.router.relay.lost_workers import DYING_S, MEMORY_S, MOST_REQUESTS, LostWorkers

from .test_policy import record


@pytest.fixture
def four(empty):
    """A router before four workers."""
    for number in range(4):
        empty.add(f"cpu-{number}")
    empty.start_router()
    return empty


def asked(deployment):
    return sum(len(stub.requests) for stub in deployment.stubs)


@pytest.mark.parametrize("mode", ["die", "drop"])
def test_a_request_that_kills_engines_takes_two_and_openais_client_does_not_send_it_again(four, mode):
    for stub in four.stubs:
        stub.mode = mode
    client = four.openai.with_options(max_retries=5)
    with pytest.raises(openai.APIStatusError) as caught:
        client.chat.completions.create(model="stub-model", messages=[])
    assert (caught.value.status_code, caught.value.code) == (502, "worker_lost")
    assert caught.value.response.headers["x-should-retry"] == "false"
    assert asked(four) == 2


def test_it_gets_no_third_worker_when_it_is_sent_again_and_others_do(four, eventually):
    for stub in four.stubs:
        stub.mode = "drop"
    assert four.chat(n=1).status_code == 502
    for stub in four.stubs:
        stub.mode = "answer"
    eventually(lambda: all(view["healthy"] for view in four.workers().values()))
    again = four.chat(n=1)
    assert (again.status_code, again.json()["error"]["code"]) == (502, "worker_lost")
    assert again.headers["x-should-retry"] == "false"
    assert asked(four) == 2
    assert four.chat(n=2).status_code == 200


def test_an_engine_that_seems_healthy_after_its_500_and_is_lost_then_counts(four, eventually):
    for stub in four.stubs:
        stub.mode = "die later"
    for killed in (1, 2):
        assert four.chat().status_code == 500
        last = next(stub for stub in four.stubs if stub.requests and stub.health == 200)
        last.health = 503
        eventually(lambda last=last: not four.workers()[last.id]["healthy"])
        assert asked(four) == killed
    assert four.chat().status_code == 502
    assert asked(four) == 2


def test_a_500_of_an_engine_that_lives_passes(two):
    for stub in two.stubs:
        stub.status = 500
    assert [two.chat().status_code for _ in range(4)] == [500] * 4
    assert all(view["healthy"] for view in two.workers().values())


def test_a_500_of_an_engine_whose_record_says_gone_goes_to_another(two, eventually):
    first = two.chat().headers["X-Stub"]
    other, dying = sorted(two.stubs, key=lambda stub: stub.id == first)[::-1]
    dying.mode = "die"
    answer = two.chat()
    assert (answer.status_code, answer.headers["X-Stub"]) == (200, other.id)
    dying.publish(WorkerState.GONE)
    eventually(lambda: two.workers()[dying.id]["state"] == "gone")


def test_a_request_at_a_stopped_worker_goes_to_another_and_does_not_count_as_its_killer(two, monkeypatch, eventually):
    monkeypatch.setattr(worker, "STOPPED_S", 0.1)
    monkeypatch.setattr(registry, "PROBE_TIMEOUT", aiohttp.ClientTimeout(total=0.3))
    first = two.chat().headers["X-Stub"]
    awake, stopped = sorted(two.stubs, key=lambda stub: stub.id == first)[::-1]
    stopped.mode = "stop"
    answer = two.chat(n=3)
    assert (answer.status_code, answer.headers["X-Stub"]) == (200, awake.id)
    assert len(stopped.requests) == 1 and stopped.aborted.wait(10)
    assert two.chat(n=3).status_code == 200
    assert f'upstream_errors_total{{kind="stopped",worker="{stopped.id}"}} 1.0' in two.http.get("/metrics").text


@pytest.mark.parametrize(
    ("lost_for", "is_elsewhere", "ends"), [(99.0, True, True), (99.0, False, False), (1.0, True, False)]
)
def test_waiting_ends_where_a_worker_has_stopped_and_another_could_take_the_request(lost_for, is_elsewhere, ends):
    async def wait():
        one = life(0)
        async with asyncio.timeout(None) as patience:
            one.waiting[patience] = lambda: is_elsewhere
            one.suspect("silent")
            one.release_waiting(one.lost_at + lost_for)
            one.release_waiting(one.lost_at + lost_for)
            await asyncio.sleep(0)
            await asyncio.sleep(0)

    with pytest.raises(TimeoutError) if ends else nullcontext():
        asyncio.run(wait())


def test_json_beyond_the_bound_is_passed_on_as_it_comes(one, monkeypatch):
    monkeypatch.setattr(Beginning.fill, "__defaults__", (10,))
    answer = one.chat()
    assert answer.json()["choices"][0]["message"]["content"] == "Hello from the stub"
    assert answer.headers["Transfer-Encoding"] == "chunked"


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


def life(number):
    return Worker(record(f"w-{number}"), trouble="", lost_at=None)


def test_two_lives_bar_a_request_for_a_while():
    clock = Clock()
    lost_workers = LostWorkers(clock)
    lost_workers.lost(b"x", life(0))
    lost_workers.lost(b"x", life(0))
    assert not lost_workers.is_barred(b"x"), "one worker, lost to two requests with the same bytes"
    lost_workers.lost(b"x", life(1))
    assert lost_workers.is_barred(b"x") and not lost_workers.is_barred(b"y")
    clock.now += MEMORY_S
    assert not lost_workers.is_barred(b"x")


def test_a_request_that_was_answered_is_no_reason():
    lost_workers = LostWorkers(Clock())
    lost_workers.lost(b"x", life(0))
    lost_workers.answered(b"x")
    lost_workers.lost(b"x", life(1))
    assert not lost_workers.is_barred(b"x")


@pytest.mark.parametrize(("after", "barred"), [(DYING_S - 1, True), (DYING_S + 1, False)])
def test_a_worker_lost_soon_after_its_500_counts(after, barred):
    clock, workers = Clock(), [life(0), life(1)]
    lost_workers = LostWorkers(clock)
    for one in workers:
        lost_workers.failed(b"x", one)
        one.lost_at = clock.now + after
    clock.now += 2 * DYING_S
    assert lost_workers.is_barred(b"x") is barred


def test_what_is_remembered_is_bounded():
    lost_workers = LostWorkers(Clock())
    for number in range(MOST_REQUESTS + 1):
        for one in (life(0), life(1)):
            lost_workers.lost(b"%d" % number, one)
            lost_workers.failed(b"%d" % number, one)
    assert not lost_workers.is_barred(b"0") and lost_workers.is_barred(b"%d" % MOST_REQUESTS)
