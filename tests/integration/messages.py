"""Anthropic's API before two native engines with the demo model, by Anthropic's client; one of them is killed."""

import os
import signal
from typing import Any

import anthropic
import pytest

from .conftest import User

MODEL = "SmolLM2-135M-Instruct"
COUNT: Any = [{"role": "user", "content": "Count from one to thirty in words, separated by commas."}]
PARIS: Any = [{"role": "user", "content": "What is the capital of France?"}]


def asked(messages, max_tokens, **fields):
    """The arguments of a request; this client has no argument for the temperature any more."""
    return {"model": MODEL, "messages": messages, "max_tokens": max_tokens, "extra_body": {"temperature": 0}, **fields}


def text_of(message):
    (block,) = message.content
    return block.text


def check_messages(user: User) -> None:
    """Ask the deployment "here", and end one of its workers in the middle of an answer."""
    url = user.status("here")["endpoint"].removesuffix("/v1")
    key = (user.home / "runs/here/key").read_text().strip()
    with anthropic.Anthropic(base_url=url, api_key=key, max_retries=0, timeout=120) as client:
        _check(client, user)


def _check(client: anthropic.Anthropic, user: User) -> None:
    whole = client.messages.create(**asked(PARIS, 24))
    assert "Paris" in whole.content[0].text
    assert whole.usage.output_tokens > 2
    with client.messages.stream(**asked(PARIS, 24)) as stream:
        streamed = stream.get_final_message()
    assert text_of(streamed) == text_of(whole)
    assert streamed.usage.output_tokens == whole.usage.output_tokens

    counted = client.messages.count_tokens(model=MODEL, messages=PARIS).input_tokens
    assert counted == whole.usage.input_tokens + whole.usage.cache_read_input_tokens
    more = client.messages.count_tokens(model=MODEL, messages=PARIS, system="Answer in one word.").input_tokens
    assert more != counted

    stopped = client.messages.create(**asked(PARIS, 24, stop_sequences=["Paris"]))
    assert (stopped.stop_reason, stopped.stop_sequence) == ("stop_sequence", "Paris")
    assert client.messages.create(**asked(PARIS, 2)).stop_reason == "max_tokens"
    begun = [*PARIS, {"role": "assistant", "content": "The capital of France is"}]
    assert client.messages.create(**asked(begun, 3)).content[0].text.startswith(" Paris")

    (model,) = client.models.list()
    assert model.id == MODEL
    with pytest.raises(anthropic.BadRequestError, match="exceed context limit"):
        client.messages.create(**asked(PARIS, 1_000_000))
    with pytest.raises(anthropic.NotFoundError, match=MODEL):
        client.messages.create(**{**asked(PARIS, 1), "model": "claude-sonnet"})

    # One whole message, although its worker is killed in the middle.
    expected = client.messages.create(**asked(COUNT, 80))
    jobs = {worker["id"]: int(worker["job"].partition("@")[0]) for worker in user.status("here")["workers"]}
    events = []
    with client.messages.stream(**asked(COUNT, 80)) as stream:
        first = stream.response.headers["x-slurminfer-worker"]
        for event in stream:
            events.append(event.type)
            if events.count("text") == 3:
                os.kill(jobs[first], signal.SIGKILL)
        message = stream.get_final_message()
    assert text_of(message) == text_of(expected)
    assert message.usage.output_tokens == expected.usage.output_tokens > 20
    assert events.count("message_start") == events.count("message_stop") == 1
    log = "".join(path.read_text() for path in (user.home / "runs/here/logs").rglob("*") if path.is_file())
    assert f"worker {first}: the connection broke off" in log, "it was lost in the middle of the answer"
