"""A request that takes its workers down, and many workers that are lost without one: who is refused for it."""

import asyncio
from collections import Counter

import httpx
import pytest

from slurminfer.router.relay import outcome
from slurminfer.router.relay.losses.blame import Losses

from .relayed import DONE, HEAD, LAST, TEXT, chunk, event, events_of, text_of

WORKERS, STREAMS = 8, 64
MOST_TAKEN = 4


class Fleet:
    """Eight workers and the clients of 64 streams. Workers go on with answers once `calm` is set."""

    def __init__(self, relay, loop, *, words_before):
        self.relay, self.loop, self.words_before = relay, loop, words_before
        self.killed: Counter[str] = Counter()
        self.calm = asyncio.Event()
        for number in range(WORKERS):
            relay.add(f"w-{number}", self.work, capacity=2 * STREAMS)

    async def work(self, asked):
        if b"poison" in asked.raw:
            self.killed[asked.stub.id] += 1
            await asked.stub.stop()
            if len(self.killed) >= MOST_TAKEN - 1:
                self.calm.set()
            return
        await asked.send(HEAD)
        rest = asked.rest
        for number, word in enumerate(rest):
            if number == self.words_before:
                await self.calm.wait()
            await asked.send(chunk(event(word, role="assistant" if number == 0 else None)))
        await asked.send(chunk(event(None, "stop")), chunk(DONE), LAST)

    async def ask(self, client, content):
        body = {"model": "m", "stream": True, "messages": [{"role": "user", "content": content}]}
        return await client.post("/v1/chat/completions", json=body)

    async def answers(self, contents, meanwhile=None):
        host, port = self.relay.address
        headers, limits = {"Authorization": "Bearer key"}, httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(
            base_url=f"http://{host}:{port}", headers=headers, limits=limits, timeout=25
        ) as client:
            asking = [asyncio.create_task(self.ask(client, content)) for content in contents]
            if meanwhile is not None:
                await meanwhile()
            return await asyncio.gather(*asking)

    async def all_in_flight(self):
        while sum(len(stub.asked) for stub in self.relay.stubs) < STREAMS:
            await asyncio.sleep(0.001)


@pytest.fixture
def fleet(relay, loop):
    def make(words_before):
        return Fleet(relay, loop, words_before=words_before)

    return make


@pytest.mark.parametrize("words_before", [0, 1], ids=["in prefill", "answering"])
def test_one_request_of_64_takes_four_workers_and_all_others_are_answered(fleet, loop, words_before):
    eight = fleet(words_before)
    contents = [f"{'the same beginning ' * 60}{number}" for number in range(STREAMS - 1)]
    *innocent, poisonous = loop.run(eight.answers([*contents, "poison"]))
    assert (poisonous.status_code, poisonous.json()["error"]["code"]) == (502, "worker_lost")
    assert len(eight.killed) == MOST_TAKEN
    assert Counter(text_of(answer) for answer in innocent) == {TEXT: STREAMS - 1}
    (again,) = loop.run(eight.answers(["poison"]))
    assert again.status_code == 502 and sum(eight.killed.values()) == MOST_TAKEN, "it is known when it comes again"


@pytest.fixture
def quick_workers(monkeypatch):
    """Workers are lost at once under a request: on a busy machine they had it for longer, and their loss says less."""
    points = Losses.points
    monkeypatch.setattr(
        Losses, "points", lambda self, own, had_s, *, has_begun: points(self, own, 0.01, has_begun=has_begun)
    )


@pytest.mark.usefixtures("quick_workers")
def test_equal_requests_at_once_are_tried_one_at_a_time_once_a_worker_was_lost(fleet, loop):
    copies = 3
    eight = fleet(0)
    contents = [f"prompt {number}" for number in range(8)]
    answers = loop.run(eight.answers([*contents, *["poison"] * copies]))
    assert Counter(text_of(answer) for answer in answers[: len(contents)]) == {TEXT: len(contents)}
    assert {(answer.status_code, answer.json()["error"]["code"]) for answer in answers[len(contents) :]} == {
        (502, "worker_lost")
    }
    assert len(eight.killed) <= copies + MOST_TAKEN - 1, "each had one, and then one of them had three"


def test_equal_requests_that_do_no_harm_wait_for_the_first_of_them_only(fleet, loop):
    eight = fleet(0)

    async def kill():
        while len(eight.relay.stubs[0].asked) + len(eight.relay.stubs[1].asked) < 2:
            await asyncio.sleep(0.001)
        for stub in eight.relay.stubs[:2]:
            await stub.stop()
        eight.calm.set()

    answers = loop.run(eight.answers(["the same"] * 32, kill))
    assert Counter(text_of(answer) for answer in answers) == {TEXT: 32}


@pytest.mark.parametrize("words_before", [0, 1], ids=["in prefill", "answering"])
@pytest.mark.parametrize("apart_s", [0.0, 0.02], ids=["at once", "one after the other"])
def test_nobody_is_refused_for_workers_that_are_killed(fleet, loop, monkeypatch, words_before, apart_s):
    monkeypatch.setattr(outcome, "PAUSE_S", 0.5)  # longer than the killing
    eight = fleet(words_before)

    async def kill():
        await eight.all_in_flight()
        for stub in eight.relay.stubs[: WORKERS - 1]:
            await stub.stop()
            await asyncio.sleep(apart_s)
        eight.calm.set()

    contents = [f"prompt {number}" for number in range(STREAMS)]
    answers = loop.run(eight.answers(contents, kill))
    assert Counter(text_of(answer) for answer in answers) == {TEXT: STREAMS}
    assert not any("error" in event for answer in answers for event in events_of(answer))
