"""Embeddings through the router: another worker answers what one has lost, and no generated tokens are expected."""

import threading

import pytest

from .relayed import TEXT, Relayed, hang, text_of

BODY = {"model": "m", "input": ["a text", "another"]}
USAGE = {"prompt_tokens": 5, "total_tokens": 5}
ANSWER = {"object": "list", "data": [{"object": "embedding", "index": 0, "embedding": "AAAA"}], "usage": USAGE}


async def embed(asked):
    await asked.whole(ANSWER)


async def answer(asked):
    await (embed(asked) if asked.target == "/v1/embeddings" else asked.answer())


async def cut_the_answer_off(asked):
    await asked.send(b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 90\r\n\r\n{"object": "li')
    asked.cut()


async def drop(asked):
    asked.cut()


async def say_nothing(asked):
    await asked.whole(b"")


async def say_garbage(asked):
    await asked.whole(b"<html>not JSON</html>")


async def say_half(asked):
    await asked.whole(b'{"object": "list", "data": [')


@pytest.mark.parametrize("fault", [drop, cut_the_answer_off, say_nothing, say_garbage, say_half])
def test_another_worker_answers_in_place_of_one_that_does_not(relay, fault):
    for name in ("w-0", "w-1"):
        relay.add(name, fault)
    first = relay.http.post("/v1/embeddings", json=BODY)
    assert first.status_code in (502, 503)
    relay.add("w-2", embed)
    found = [relay.http.post("/v1/embeddings", json={**BODY, "user": str(i)}) for i in range(3)]
    assert {each.status_code for each in found} == {200}
    assert all(each.json() == ANSWER for each in found)


def test_tokens_of_the_prompt_are_counted_and_the_path_has_its_own_figures(relay):
    relay.add("w-0", embed)
    assert relay.http.post("/v1/embeddings", json=BODY).json() == ANSWER
    report = relay.report()
    used = report.usage["one"]
    assert (used.requests, used.prompt_tokens, used.generated_tokens) == (1, 5, 0)
    assert report.counters.requests[("/v1/embeddings", 200)] == 1
    assert relay.run(lambda: relay.board.spent(0, 0)[2]) == 5


def test_vectors_as_bytes_pass_as_they_are(relay):
    """vLLM's `encoding_format` for those who want no JSON."""

    async def say_bytes(asked):
        await asked.whole(b"\0\1\2", kind="application/octet-stream")

    relay.add("w-0", say_bytes)
    answer = relay.http.post("/v1/embeddings", json={**BODY, "encoding_format": "bytes"})
    assert (answer.status_code, answer.content) == (200, b"\0\1\2")


def _hold(relay: Relayed, client, path, body):
    """Send a request that stays in flight at a worker; the thread that waits for it."""
    stub = relay.stubs[0]
    before, stub.behaviour = len(stub.asked), hang
    thread = threading.Thread(target=lambda: client.post(path, json=body), daemon=True)
    thread.start()
    return thread, lambda: len(stub.asked) > before


def test_no_tokens_are_reserved_for_an_answer_that_generates_none(relay, eventually):
    relay.add("w-0", answer)
    bob = relay.add_tenant("b", name="bob", tokens_per_day=100)
    thread, has_come = _hold(relay, bob, "/v1/embeddings", BODY)
    eventually(has_come)
    relay.stubs[0].behaviour = answer
    assert bob.post("/v1/embeddings", json=BODY).status_code == 200
    relay.kill(relay.stubs[0])
    thread.join(20)
    bob.close()


def test_answers_to_come_are_not_taken_to_be_as_short_as_embeddings(relay, eventually):
    relay.add("w-0", answer)
    bob = relay.add_tenant("b", name="bob", tokens_per_day=200)
    chat = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}
    for _ in range(10):
        assert bob.post("/v1/embeddings", json=BODY).status_code == 200
    thread, has_come = _hold(relay, bob, "/v1/chat/completions", chat)
    eventually(has_come)
    relay.stubs[0].behaviour = answer
    refused = bob.post("/v1/chat/completions", json=chat)
    assert refused.json()["error"]["code"] == "rate_limit_exceeded", "256 tokens are reserved for the other answer"
    relay.kill(relay.stubs[0])
    thread.join(20)
    bob.close()


def test_a_large_answer_passes_whole_with_its_usage(relay):
    """More than the router holds until an answer is complete."""
    big = {"object": "list", "data": [{"index": i, "embedding": "x" * 100_000} for i in range(150)], "usage": USAGE}

    async def behave(asked):
        await asked.whole(big)

    relay.add("w-0", behave)
    assert relay.http.post("/v1/embeddings", json=BODY).json() == big
    assert relay.report().usage["one"].prompt_tokens == 5


def test_chats_go_on_beside_embeddings(relay):
    relay.add("w-0", answer)
    assert relay.http.post("/v1/embeddings", json=BODY).status_code == 200
    assert text_of(relay.chat()) == TEXT
