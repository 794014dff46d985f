"""Anthropic's API through a relay, by Anthropic's own client, before stub workers that play chat completions."""

from contextlib import ExitStack

import anthropic
import pytest

from ..relayed import TEXT

ASKED = {"model": "m", "max_tokens": 50, "messages": [{"role": "user", "content": "Hi"}]}


@pytest.fixture
def client_of(relay):
    """Makes clients with a key."""
    host, port = relay.address
    with ExitStack() as stack:
        yield lambda key: stack.enter_context(
            anthropic.Anthropic(base_url=f"http://{host}:{port}", api_key=key, max_retries=0)
        )


@pytest.fixture
def client(client_of):
    return client_of("key")


def whole(client, **fields):
    return client.messages.create(**{**ASKED, **fields})


def streamed(client, **fields):
    with client.messages.stream(**{**ASKED, **fields}) as stream:
        return stream.get_final_message()


@pytest.mark.parametrize("asked", [whole, streamed])
def test_a_message(relay, client, asked):
    stub = relay.add("w-0")
    message = asked(client, system="Be kind.")
    assert [block.text for block in message.content] == [TEXT]
    assert (message.role, message.model, message.stop_reason) == ("assistant", "m", "end_turn")
    assert (message.usage.input_tokens, message.usage.output_tokens) == (7, 6)
    seen = stub.asked[-1]
    assert seen.target == "/v1/chat/completions"
    assert seen.body["messages"] == [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hi"}]


def test_a_stream_goes_on_when_its_worker_is_lost(relay, client):
    async def die_once(asked):
        is_first = sum(len(stub.asked) for stub in relay.stubs) == 1
        await asked.answer(words=3 if is_first else None)
        if is_first:
            asked.cut()

    stubs = [relay.add("w-0", die_once), relay.add("w-1", die_once)]
    message = streamed(client)
    assert [block.text for block in message.content] == [TEXT]
    assert message.usage.output_tokens == 6
    assert [len(stub.asked) for stub in stubs] == [1, 1]


def test_what_a_request_counts_as(relay, client):
    relay.add("w-0")
    whole(client)
    counters = relay.report().counters
    assert counters.requests == {("/v1/messages", 200): 1}
    assert list(counters.duration) == ["/v1/messages"]
    assert relay.report().usage["one"].generated_tokens == 6


def test_tokens_are_counted_by_the_engine(relay, client):
    stub = relay.add("w-0")
    assert client.messages.count_tokens(model="m", messages=ASKED["messages"]).input_tokens == 7
    assert (stub.asked[-1].body["max_tokens"], "stream" in stub.asked[-1].body) == (1, False)
    assert relay.report().counters.requests == {("/v1/messages/count_tokens", 200): 1}
