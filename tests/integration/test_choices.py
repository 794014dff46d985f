"""Streams of several choices before two native engines with a real model, by OpenAI's client; one of them is killed."""

import os
import signal

import openai
import pytest

from ..support.waiting import eventually

pytestmark = [pytest.mark.process, pytest.mark.slow, pytest.mark.network]

SPEC = """
name = "here"
[model]
path = "demo"
[[pool]]
name = "cpu"
workers = 2
[router]
port = 0
"""
MODEL = "SmolLM2-135M-Instruct"
COUNT = [{"role": "user", "content": "Count from one to thirty in words, separated by commas."}]
SCHEMA = {
    "type": "object",
    "properties": {"words": {"type": "array", "items": {"enum": ["one", "two", "ü"]}, "minItems": 1, "maxItems": 12}},
    "required": ["words"],
    "additionalProperties": False,
}
FORMAT = {"type": "json_schema", "json_schema": {"name": "words", "schema": SCHEMA, "strict": True}}
USAGE = {"stream": True, "stream_options": {"include_usage": True}}
SAMPLED = {**USAGE, "temperature": 1, "top_p": 0.95, "seed": 3}


@pytest.fixture
def client(user, tmp_path):
    spec = tmp_path / "spec.toml"
    spec.write_text(SPEC)
    user.ok("serve", spec, "--local", "--wait")
    key = (user.home / "runs/here/key").read_text().strip()
    with openai.OpenAI(base_url=user.status("here")["endpoint"], api_key=key, max_retries=0, timeout=120) as client:
        yield client


class Told:
    """What a client is told of each choice, and of the tokens."""

    def __init__(self):
        self.texts, self.ends, self.usage = {}, {}, None

    def add(self, chunk):
        """Take an event; whether it has text."""
        if chunk.usage is not None:
            self.usage = (chunk.usage.prompt_tokens, chunk.usage.completion_tokens)
        for choice in chunk.choices:
            assert choice.index not in self.ends, "something after the finish reason"
            text = choice.delta.content if hasattr(choice, "delta") else choice.text
            self.texts[choice.index] = self.texts.get(choice.index, "") + (text or "")
            if choice.finish_reason:
                self.ends[choice.index] = choice.finish_reason
        return bool(chunk.choices)


def asked(create, fields, kill=None):
    """What is told, and which worker answers; `kill` is called with it after some events."""
    raw, told, events = create.with_raw_response.create(model=MODEL, **fields), Told(), 0
    worker = raw.headers["x-slurminfer-worker"]
    for chunk in raw.parse():
        events += told.add(chunk)
        if kill and events == 9:
            kill(worker)
    assert events > 12, "it ended before a worker was killed"
    return told, worker


def test_each_choice_is_what_it_would_have_been(client, user):
    chats, texts = client.chat.completions, client.completions
    cases = [
        (chats, {**USAGE, "messages": COUNT, "n": 3, "temperature": 0, "max_tokens": 48}),
        (chats, {**SAMPLED, "messages": COUNT, "n": 3, "max_tokens": 90, "response_format": FORMAT}),
        (texts, {**SAMPLED, "prompt": ["Once upon a time", "The sea"], "n": 2, "max_tokens": 32, "stop": [" and"]}),
    ]

    def jobs():
        ready = [worker for worker in user.status("here")["workers"] if worker["state"] == "ready"]
        return {worker["id"]: int(worker["job"].partition("@")[0]) for worker in ready}

    for create, fields in cases:
        eventually(lambda: len(jobs()) == 2, "two workers are ready")
        expected, _ = asked(create, fields)
        pids = jobs()
        found, lost = asked(create, fields, lambda worker, pids=pids: os.kill(pids[worker], signal.SIGKILL))
        assert (found.texts, found.ends, found.usage) == (expected.texts, expected.ends, expected.usage)
        log = "".join(path.read_text() for path in (user.home / "runs/here/logs").rglob("*") if path.is_file())
        assert f"worker {lost}: the connection broke off" in log, "it was lost in the middle of the answer"
