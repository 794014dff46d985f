"""Several tenants before one relay: limits, classes, and batch that gives way."""

import asyncio
import json
import socket
from concurrent.futures import ThreadPoolExecutor

import pytest

from slurminfer.router.relay import outlet
from slurminfer.router.relay.stream.transcript import Transcript
from slurminfer.router.tenants.tenant import Priority

from .relayed import LAST, chunk, hang, text_of

INTERACTIVE, DEFAULT, BATCH = Priority
FULL = {"capacity": 1}  # with overcommit 1.25 one slot


@pytest.fixture
def threads():
    with ThreadPoolExecutor(8) as pool:
        yield pool


class Gate:
    """A worker that answers each request when the test says so."""

    def __init__(self, relay, **view):
        self.relay, self.open = relay, False
        self.held = 0  # requests that came before it was open
        self.stub = relay.add("w-0", self.behaviour, **FULL, **view)

    async def behaviour(self, asked):
        if not self.open:
            self.held += 1
            await asked.forever()
        await asked.answer()


def code_of(answer):
    return answer.json()["error"]["code"]


def test_limits_are_told_with_every_answer_and_refusals_say_when_to_come_back(one):
    alice = one.add_tenant("a", name="alice", requests_per_minute=2, tokens_per_day=1000)
    first = one.chat(alice)
    assert first.status_code == 200
    assert first.headers["x-ratelimit-limit-requests"] == "2"
    assert first.headers["x-ratelimit-remaining-requests"] == "1"
    assert first.headers["x-ratelimit-limit-tokens"] == "1000"
    assert one.chat(alice, stream=True).headers["x-ratelimit-remaining-requests"] == "0"
    refused = one.chat(alice)
    assert (refused.status_code, code_of(refused)) == (429, "rate_limit_exceeded")
    assert 1 <= int(refused.headers["Retry-After"]) <= 120
    assert refused.headers["x-ratelimit-remaining-requests"] == "0"
    assert int(refused.headers["x-ratelimit-remaining-tokens"]) < 1000
    assert one.chat().status_code == 200, "others have limits of their own"
    assert not [name for name in one.chat().headers if name.startswith("x-ratelimit")]
    assert len(one.stubs[0].asked) == 4
    alice.close()


def test_tokens_of_the_day_come_from_the_supervisor_and_from_answers(one, eventually):
    one.tokens_today["bob"] = 995
    bob = one.add_tenant("b", name="bob", tokens_per_day=1000)
    assert one.chat(bob).status_code == 200  # 7 + 6 tokens
    eventually(lambda: one.board.spent(1, 0)[2] == 13)
    refused = one.chat(bob)
    assert (refused.status_code, code_of(refused)) == (429, "insufficient_quota")
    assert "bob has used 1008 tokens today" in refused.json()["error"]["message"]
    bob.close()


def test_many_requests_at_once_do_not_use_a_days_tokens_many_times(one, threads, eventually):
    go = one.run(asyncio.Event)

    async def when_told(asked):
        await go.wait()
        await asked.answer()

    one.stubs[0].behaviour = when_told
    bob = one.add_tenant("b", name="bob", tokens_per_day=350)
    answers = [threads.submit(one.chat, bob, max_tokens=100) for _ in range(8)]
    eventually(lambda: sum(answer.done() for answer in answers) == 4 and len(one.stubs[0].asked) == 4)
    assert 400 < one.run(lambda: one.board.spent(1, 0)[3]) < 500
    refused = [answer.result() for answer in answers if answer.done()]
    assert {(answer.status_code, code_of(answer)) for answer in refused} == {(429, "rate_limit_exceeded")}
    assert {answer.headers["Retry-After"] for answer in refused} == {"5"}
    one.run(go.set)
    assert [answer.result().status_code for answer in answers].count(200) == 4
    eventually(lambda: one.run(lambda: one.board.spent(1, 0)[3]) == 0)
    assert one.chat(bob, max_tokens=100).status_code == 200, "the answers were shorter"
    bob.close()


async def nearly_all(asked):
    """A stream of five words that does not end."""
    await asked.answer(words=5)
    await asked.forever()


def leave_after_five(client, content):
    """Ask for a stream, and hang up once its fifth word has come."""
    body = {"model": "m", "messages": [{"role": "user", "content": content}], "stream": True}
    with client.stream("POST", "/v1/chat/completions", json=body) as answer:
        got = ""
        for text in answer.iter_text():
            got += text
            if " five" in got:
                break


def test_a_client_that_hangs_up_before_the_end_has_used_what_it_got(one, eventually):
    one.stubs[0].behaviour = nearly_all
    bob = one.add_tenant("b", name="bob", tokens_per_day=1000)
    leave_after_five(bob, "Hi" * 50)
    eventually(lambda: "bob" in one.report().usage)
    usage = one.report().usage["bob"]
    assert (usage.requests, usage.generated_tokens) == (1, 5)
    assert 20 <= usage.prompt_tokens <= 30, "about four bytes each"
    assert one.board.spent(1, 0)[2] == usage.prompt_tokens + 5
    bob.close()


def test_of_a_long_stream_that_its_client_leaves_events_are_counted(one, eventually, monkeypatch):
    """To read it would take a second for 30 MB, in which all others wait."""
    monkeypatch.setattr(outlet, "_MOST_READ", 100)
    monkeypatch.setattr(Transcript, "story", None)  # which would fail
    one.stubs[0].behaviour = nearly_all
    bob = one.add_tenant("b", name="bob")
    leave_after_five(bob, "Hi")
    eventually(lambda: "bob" in one.report().usage)
    assert one.report().usage["bob"].generated_tokens == 5
    bob.close()


def hung_up(relay, bob, eventually, **fields):
    """The usage of a tenant that hangs up when its request is at the worker."""
    body = json.dumps({"model": "m", "messages": [{"role": "user", "content": "Hi" * 50}], **fields}).encode()
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer b\r\nContent-Length: %d\r\n\r\n"
    asked = len(relay.stubs[0].asked)
    with socket.create_connection(relay.address, timeout=20) as client:
        client.sendall(head % len(body) + body)
        eventually(lambda: len(relay.stubs[0].asked) > asked)
    eventually(relay.is_idle)
    eventually(lambda: relay.run(lambda: relay.board.spent(1, 0)[3]) == 0, "nothing is reserved any more")
    return relay.report().usage["bob"]


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_hangs_up_has_used_the_prompt_that_was_sent_to_a_worker(one, eventually, stream):
    """Else prompts could be computed for nothing, one after the other."""
    one.stubs[0].behaviour = hang
    bob = one.add_tenant("b", name="bob", tokens_per_day=1000)
    usage = hung_up(one, bob, eventually, stream=stream, max_tokens=500)
    assert (usage.requests, usage.generated_tokens) == (1, 0) and 20 <= usage.prompt_tokens <= 30
    assert one.run(lambda: one.board.spent(1, 0)[2]) == usage.prompt_tokens
    bob.close()


def test_a_client_that_hangs_up_while_it_waits_has_used_nothing(relay, eventually):
    relay.promise(may_come=True)
    bob = relay.add_tenant("b", name="bob", tokens_per_day=1000)
    body = b'{"model": "m", "messages": [{"role": "user", "content": "Hi"}]}'
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer b\r\nContent-Length: %d\r\n\r\n"
    with socket.create_connection(relay.address, timeout=20) as client:
        client.sendall(head % len(body) + body)
        eventually(lambda: relay.run(lambda: relay.board.spent(1, 0)[3]) > 0)
    eventually(lambda: relay.run(lambda: relay.board.spent(1, 0)[3]) == 0)
    assert relay.run(lambda: relay.board.spent(1, 0)[2]) == 0 and "bob" not in relay.report().usage
    bob.close()


@pytest.mark.parametrize("how", ["lost", "error event"])
def test_what_came_of_a_stream_that_breaks_off_counts(one, eventually, how):
    """A client that can make an engine fail at the end gets no tokens for nothing."""

    async def nearly_all(asked):
        await asked.answer(words=5)
        if how == "lost":
            asked.cut()
        await asked.send(chunk(b'data: {"error": {"message": "no", "type": "x", "code": 500}}\n\n'), LAST)

    one.stubs[0].behaviour = nearly_all
    bob = one.add_tenant("b", name="bob", tokens_per_day=1000)
    answer = one.chat(bob, stream=True)
    assert '"error"' in answer.text
    eventually(lambda: "bob" in one.report().usage)
    assert one.report().usage["bob"].generated_tokens == 5
    assert one.run(lambda: one.board.spent(1, 0)[3]) == 0
    bob.close()


@pytest.mark.parametrize(
    ("path", "usage"),
    [
        ("/v1/responses", {"input_tokens": 9, "output_tokens": 4}),
        ("/v1/messages", {"input_tokens": 9, "output_tokens": 4}),
        (
            "/v1/messages",
            {"input_tokens": 2, "cache_read_input_tokens": 4, "cache_creation_input_tokens": 3, "output_tokens": 4},
        ),
        ("/v1/messages", {"input_tokens": 6, "cache_creation_input_tokens": 3, "output_tokens": 4}),
        ("/v1/responses", {"input_tokens": 9, "input_tokens_details": {"cached_tokens": 5}, "output_tokens": 4}),
        ("/v1/embeddings", {"prompt_tokens": 13, "total_tokens": 13}),
    ],
)
def test_answers_of_every_api_count(relayed, path, usage):
    async def behaviour(asked):
        await asked.whole({"object": "x", "usage": usage, "data": [{"embedding": [1]}]})

    one = relayed(translate=())
    one.add("w-0", behaviour)
    bob = one.add_tenant("b", name="bob", tokens_per_day=13)
    assert bob.post(path, json={"model": "m", "input": "a"}).status_code == 200
    refused = bob.post(path, json={"model": "m", "input": "a"})
    assert refused.status_code == 429 and "has used 13 tokens today" in refused.json()["error"]["message"]
    bob.close()


def test_a_request_may_lower_its_class_and_never_raise_it(one):
    async def behaviour(asked):
        assert "x-slurminfer-tenant" not in asked.headers
        await asked.answer()

    one.stubs[0].behaviour = behaviour
    alice = one.add_tenant("a", name="alice", priority=BATCH)
    for asked in ("interactive", "default", "batch"):
        assert alice.post("/v1/chat/completions", json={"model": "m", "messages": []}, headers={
            "X-Priority": asked, "X-Slurminfer-Tenant": "one", "X-Slurminfer-Admin": "1",
        }).status_code == 200  # fmt: skip
    assert set(one.report().counters.queue_time) == {"batch"}
    alice.close()


def test_a_revoked_key_is_refused(one):
    alice = one.add_tenant("a", name="alice")
    assert one.chat(alice).status_code == 200
    one._tenants.pop()
    one.run(one._tell_tenants)
    assert one.chat(alice).status_code == 401
    alice.close()


@pytest.mark.parametrize("stream", [True, False])
def test_batch_gives_way_before_its_first_byte_and_is_answered_later(relay, threads, eventually, stream):
    gate = Gate(relay)
    batch = relay.client("key", **{"X-Priority": "batch"})
    waiting = threads.submit(relay.chat, batch, stream=stream)
    eventually(lambda: gate.held == 1)
    gate.open = True
    urgent = relay.chat()
    answer = waiting.result(20)  # another request before that could preempt it again
    undisturbed = text_of(relay.chat())
    assert (urgent.status_code, text_of(urgent)) == (200, undisturbed)
    assert (answer.status_code, text_of(answer)) == (200, undisturbed)
    eventually(lambda: gate.stub.aborted == 1, "the worker computes it no more")
    batch.close()


def test_batch_of_whose_answer_the_client_has_something_stays(relay, threads, eventually):
    async def behaviour(asked):
        if len(stub.asked) == 1:
            await asked.answer(words=2)
            await asked.forever()
        await asked.answer()

    stub = relay.add("w-0", behaviour, **FULL)
    batch = relay.client("key", **{"X-Priority": "batch"})
    with batch.stream("POST", "/v1/chat/completions", json={"model": "m", "messages": [], "stream": True}) as begun:
        pieces = begun.iter_raw()
        next(pieces)
        urgent = threads.submit(relay.chat)
        eventually(lambda: relay.report().queued["interactive"] + relay.report().queued["default"] == 1)
        assert stub.aborted == 0
    assert urgent.result(20).status_code == 200
    batch.close()


def test_a_request_that_waits_too_long_is_told_when_to_come_back(relayed, threads, eventually):
    relay = relayed(queue_timeout=0.05)
    gate = Gate(relay)
    inside = threads.submit(relay.chat)
    eventually(lambda: gate.held == 1)
    late = relay.chat()
    assert (late.status_code, code_of(late)) == (503, "queue_timeout")
    assert int(late.headers["Retry-After"]) == 1
    relay.kill(gate.stub)
    inside.result(20)


def test_a_full_queue_refuses_and_a_client_that_hangs_up_makes_room(relayed, threads, eventually):
    relay = relayed(queue=1)
    gate = Gate(relay)
    inside = threads.submit(relay.chat)
    eventually(lambda: gate.held == 1)
    waiting = socket.create_connection(relay.address)
    waiting.sendall(
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer key\r\nContent-Length: 13\r\n\r\n"
        b'{"model":"m"}'
    )
    eventually(lambda: sum(relay.report().queued.values()) == 1)
    full = relay.chat()
    assert (full.status_code, code_of(full)) == (429, "queue_full")
    assert "Retry-After" in full.headers
    waiting.close()
    eventually(lambda: sum(relay.report().queued.values()) == 0)
    relay.kill(gate.stub)
    inside.result(20)


def test_a_priority_may_be_lowered_and_not_raised(one):
    clerk = one.add_tenant("c", name="clerk", priority=BATCH)
    clerk.headers["X-Priority"] = "interactive"
    assert one.chat(clerk).status_code == 200
    clerk.headers["X-Priority"] = "high"
    wrong = one.chat(clerk)
    assert wrong.status_code == 400
    assert "interactive, default, batch" in wrong.json()["error"]["message"]
    clerk.close()
