"""Streams whose request does not look like one: they count, and stay apart from those of other tenants."""

import json

import pytest

from .relayed import DONE, HEAD, LAST, WORDS, chunk, event, events_of, text_of

CHAT = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}
SECRET = "a secret of somebody else"


async def stream_secret(asked):
    await asked.send(HEAD, chunk(event(SECRET, role="assistant")), chunk(event(None, "stop")), chunk(DONE), LAST)


def test_a_stream_that_nobody_has_asked_for_is_no_answer(two):
    """Its client could not read it. Another worker is asked."""
    for stub in two.stubs:
        stub.behaviour = stream_secret
    answer = two.chat()
    assert answer.status_code == 502 and "a stream that nobody has asked for" in answer.json()["error"]["message"]
    assert SECRET not in answer.text and len([stub for stub in two.stubs if stub.asked]) == 2


@pytest.mark.parametrize("stream", [1, 1.0, "true", "Yes", "on"])
def test_a_stream_that_engines_take_for_one_is_one(one, stream, eventually):
    bob = one.add_tenant("b", name="bob", tokens_per_day=1000)
    answer = one.chat(bob, stream=stream)
    assert text_of(answer) == "".join(WORDS) and not any("usage" in event for event in events_of(answer))
    eventually(lambda: one.board.spent(1, 0)[2] == 13)


def test_a_body_whose_type_is_given_twice_counts_too(one, eventually):
    bob = one.add_tenant("b", name="bob", tokens_per_day=1000)
    types = [("Content-Type", "application/json"), ("Content-Type", "multipart/form-data; boundary=x")]
    answer = bob.post("/v1/chat/completions", content=json.dumps({**CHAT, "stream": True}), headers=types)
    assert text_of(answer) == "".join(WORDS)
    eventually(lambda: one.board.spent(1, 0)[2] == 13)


@pytest.mark.parametrize("begun", [False, True])
def test_an_event_that_never_ends_is_not_held(one, begun, eventually):
    async def endless(asked):
        await asked.send(HEAD, *([chunk(event("one"))] if begun else []), chunk(b"data: "))
        while True:
            await asked.send(chunk(b"x" * 2**20))

    one.stubs[0].behaviour = endless
    answer = one.chat(stream=True)
    assert "an event has more than 8388608 bytes" in answer.text
    eventually(lambda: one.stubs[0].aborted)
