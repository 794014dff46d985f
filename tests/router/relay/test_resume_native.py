"""Streams of the native engine, cut anywhere and continued: they are what they would have been."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from slurminfer.router.relay.stream.envelope import read_envelope
from slurminfer.router.relay.stream.events import without_token_ids, without_usage
from slurminfer.router.relay.stream.resume import Continuation, Finished, plan, prepare
from slurminfer.router.relay.stream.transcript import Transcript

from ...support.chat_model import TEMPLATE, write_chat_model
from ...support.waiting import eventually

pytestmark = pytest.mark.process

CHAT: dict[str, Any] = {"messages": [{"role": "user", "content": "こんにちは"}]}
PREFILLED = {"messages": [*CHAT["messages"], {"role": "assistant", "content": "Blo"}], "continue_final_message": True}
TEXT: dict[str, Any] = {"prompt": "The quick"}
USAGE = {"stream_options": {"include_usage": True}}
SAMPLED = {**USAGE, "temperature": 1.0, "seed": 7}
PARAMETERS = {"type": "object", "properties": {"a": {"enum": ["x", "yz"]}, "b": {"type": "boolean"}}}
TOOLS = [{"type": "function", "function": {"name": name, "parameters": PARAMETERS}} for name in ("f", "ping")]
# What a random model says is of this form; the template has ended the thinking, so that the form is for all of it.
SHAPED = {**CHAT, "max_tokens": 200, "chat_template_kwargs": {"tag": "<think></think>"}}
THOUGHT = r"<think>[a-z ]{5,9}</think>\n\n"
CALL = r'<tool_call>\{"name": "f", "arguments": \{"a": "[x-z]{4}"\}\}</tool_call>'
REQUESTS: dict[str, dict[str, Any]] = {
    "chat": {**CHAT, **USAGE, "max_tokens": 40},
    "prefilled": {**PREFILLED, "max_completion_tokens": 30},
    "completion": {**TEXT, "max_tokens": 40},
    "default length": {**TEXT, **USAGE},
    "token ids": {"prompt": [60, 61, 62], "max_tokens": 30},
    "stop strings": {**CHAT, **USAGE, "max_tokens": 60, "stop": [" the", "ck", "e q"], "presence_penalty": 0.5},
    "sampled": {**TEXT, "max_tokens": 30, "temperature": 1.0, "seed": 7},
    "thinking": {**CHAT, **USAGE, "max_tokens": 30, "chat_template_kwargs": {"tag": "<think>"}},
    "thought and said": {**SHAPED, **USAGE, "regex": f"{THOUGHT}[A-Z ]{{9}}"},
    "thought in one piece": {**SHAPED, "regex": f"{THOUGHT}[A-Z ]{{9}}", "stream_reasoning": False},
    "thought, said and called": {**SHAPED, "tools": TOOLS, "regex": f"{THOUGHT}[A-Z]{{4}} {CALL}", "seed": 4,
                                 "temperature": 1.0},
    "logprobs": {**TEXT, "max_tokens": 20, "logprobs": 2},
    "echo": {**TEXT, **USAGE, "max_tokens": 20, "echo": True},
    "echo with logprobs": {**TEXT, **USAGE, "max_tokens": 20, "logprobs": 2, "echo": True},
    "schema": {**CHAT, **USAGE, "max_tokens": 60, "temperature": 1.0, "seed": 4, "response_format": {
        "type": "json_schema", "json_schema": {"name": "pair", "schema": {
            "type": "array", "items": {"enum": ["ü", 12, {"a": None}]}, "minItems": 3, "maxItems": 4}}}},
    "regular expression": {**TEXT, "max_tokens": 40, "regex": "([a-c]{2,4}-){5}🎉"},
    "choice and stop strings": {**CHAT, "guided_choice": ["keys and values", "values and keys"], "stop": ["d v", "y"]},
    "forced calls": {**SHAPED, **USAGE, "tools": TOOLS, "tool_choice": "required", "max_tokens": 200},
    "one call": {**SHAPED, "tools": TOOLS, "tool_choice": "required", "parallel_tool_calls": False, "max_tokens": 200,
                 "temperature": 1.0, "seed": 3},
    "cut call": {**SHAPED, "tools": TOOLS, "tool_choice": "required", "max_tokens": 30},
    "continuous usage": {**CHAT, "stream_options": {"include_usage": True, "continuous_usage_stats": True},
                         "max_tokens": 20},
    "three choices": {**CHAT, **USAGE, "max_tokens": 12, "n": 3, "best_of": 3},
    "three sampled choices": {**CHAT, **SAMPLED, "max_tokens": 16, "min_tokens": 4, "stop": ["e", " t", "a", "ck"],
                              "presence_penalty": 0.5, "n": 3},
    "choices of several prompts": {**SAMPLED, "prompt": ["The", "A", "い"], "max_tokens": 8, "n": 2, "logprobs": 1},
    "echo of several prompts": {**USAGE, "prompt": [[60, 61], [62]], "max_tokens": 6, "logprobs": 1, "echo": True},
    "choices by a regular expression": {**TEXT, **SAMPLED, "max_tokens": 40, "regex": "([a-c]{1,4}-){1,9}🎉", "n": 4},
    "choices by a schema": {**CHAT, **SAMPLED, "max_tokens": 60, "n": 2, "response_format": {
        "type": "json_schema", "json_schema": {"name": "pair", "schema": {
            "type": "array", "items": {"enum": ["ü", 12]}, "minItems": 1, "maxItems": 4}}}},
    "choices that think, say and call": {**SHAPED, **SAMPLED, "tools": TOOLS, "n": 2,
                                         "regex": f"{THOUGHT}[A-Z]{{1,4}} {CALL}"},
    "choices of forced calls": {**SHAPED, **SAMPLED, "tools": TOOLS, "tool_choice": "required", "n": 2},
}  # fmt: skip


class Engine:
    """A server of the native engine, asked as the router does."""

    def __init__(self, url: str, model: str) -> None:
        self.model = model
        self._client = httpx.Client(base_url=url, timeout=60)

    def close(self) -> None:
        self._client.close()

    def ready(self) -> bool:
        return self._client.get("/health").status_code == 200

    def ask(self, path: str, body: bytes) -> bytes:
        answer = self._client.post(path, content=body)
        assert answer.status_code == 200, answer.text
        return answer.content


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    directory = tmp_path_factory.mktemp("models") / "tiny"
    write_chat_model(directory)
    (directory / "chat_template.jinja").write_text(TEMPLATE + "{{ tag }}{#- <think> -#}")
    command = [sys.executable, "-m", "slurminfer.nodes.native", "--port", "0", "--threads", "1", "--dtype", "float32"]
    command += ["--model", str(directory), "--kv-cache-gib", "0.05"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        found = re.search(r"http://\S+:\d+", process.stdout.readline())
        assert found
        engine = Engine(found[0], directory.name)
        eventually(engine.ready, "health")
        yield engine
        engine.close()
        process.terminate()


def events(data: bytes) -> list[bytes]:
    return [event + b"\n\n" for event in data.split(b"\n\n") if event]


def told(data: bytes, body: bytes) -> dict[str, Any]:
    """All that a client is told, put together."""
    data = data if b"include_usage" in body else without_usage(data)
    *parsed, done = [e.removeprefix(b"data: ").strip() for e in events(without_token_ids(data))]
    assert done == b"[DONE]"
    assert b"token_ids" not in b"".join(parsed)
    chunks = [json.loads(event) for event in parsed]
    assert len({(chunk["id"], chunk["created"], chunk["model"]) for chunk in chunks}) == 1
    choices = [choice for chunk in chunks for choice in chunk["choices"]]
    said = {index: told_of_choice([choice for choice in choices if choice["index"] == index])
            for index in sorted({choice["index"] for choice in choices})}  # fmt: skip
    return {"choices": said, "usage": [counts(chunk["usage"]) for chunk in chunks if not chunk["choices"]]}


def counts(usage: dict[str, Any]) -> list[int]:
    names = ("prompt_tokens", "completion_tokens", "total_tokens")
    return [*(usage[name] for name in names), usage["completion_tokens_details"]["reasoning_tokens"]]


def told_of_choice(choices: list[dict[str, Any]]) -> dict[str, Any]:
    deltas = [choice.get("delta", choice) for choice in choices]
    calls = [call for delta in deltas for call in delta.get("tool_calls") or []]
    arguments: dict[int, str] = {}
    for call in calls:
        arguments[call["index"]] = arguments.get(call["index"], "") + call["function"].get("arguments", "")
    logprobs = [choice["logprobs"] for choice in choices if choice["logprobs"]]
    return {
        "text": "".join(delta.get("content") or delta.get("text") or "" for delta in deltas),
        "thought": "".join(delta.get("reasoning_content") or "" for delta in deltas),
        "calls": [(call["index"], call["id"], call["function"]["name"]) for call in calls if "id" in call],
        "arguments": arguments,
        "role": [delta["role"] for delta in deltas if "role" in delta],
        "finish": [choice["finish_reason"] for choice in choices if choice["finish_reason"]],
        "logprobs": [(one["tokens"], one["text_offset"]) for one in logprobs],
    }


def continued(engine: Engine, path: str, body: bytes, sent: list[bytes]) -> bytes:
    """The stream that goes on after `sent`, from there on, as the router writes it."""
    envelope, transcript = read_envelope(path, "", body), Transcript()
    for event in sent:
        transcript.add(event)
    how = plan(envelope, body, transcript, "native")
    if isinstance(how, Finished):
        return how.events
    assert isinstance(how, Continuation), how
    new = engine.ask(path, how.body)
    return new if how.stitcher is None else b"".join(map(how.stitcher.feed, events(new)))


def request(engine: Engine, name: str) -> tuple[str, bytes]:
    body = {"model": engine.model, "stream": True, "temperature": 0, **REQUESTS[name]}
    path = "/v1/chat/completions" if "messages" in body else "/v1/completions"
    return path, json.dumps(body).encode()


@pytest.mark.parametrize("name", REQUESTS)
def test_continued_after_any_event(engine: Engine, name: str) -> None:
    path, body = request(engine, name)
    undisturbed = events(engine.ask(path, prepare(body, read_envelope(path, "", body), "native")))
    count = len(undisturbed)
    for cut in {*range(0, count, max(4, count // 12)), 1, 2, count - 3, count - 2, count - 1}:
        sent = undisturbed[:cut]
        whole = b"".join(sent) + continued(engine, path, body, sent)
        assert told(whole, body) == told(b"".join(undisturbed), body), f"cut after {cut}"


@pytest.mark.parametrize(
    ("name", "thought", "said", "called"),
    [
        ("thinking", True, False, False), ("thought and said", True, True, False),
        ("thought in one piece", True, True, False), ("thought, said and called", True, True, True),
        ("forced calls", False, False, True), ("one call", False, False, True),
    ],
)  # fmt: skip
def test_what_these_requests_are_answered(engine: Engine, name: str, thought: bool, said: bool, called: bool) -> None:
    path, body = request(engine, name)
    found = told(engine.ask(path, body), body)["choices"][0]
    assert (bool(found["thought"]), bool(found["text"]), bool(found["calls"])) == (thought, said, called), found
    assert "<" not in found["text"]
    if called:
        assert [json.loads(arguments) for arguments in found["arguments"].values()]


@pytest.mark.parametrize(
    "name",
    [
        "chat",
        "completion",
        "stop strings",
        "thought, said and called",
        "forced calls",
        "three sampled choices",
        "choices of several prompts",
        "choices of forced calls",
    ],
)
def test_cut_again(engine: Engine, name: str) -> None:
    path, body = request(engine, name)
    undisturbed = events(engine.ask(path, prepare(body, read_envelope(path, "", body), "native")))
    sent = undisturbed[:3]
    for more in (4, 5, 6):
        sent += events(continued(engine, path, body, sent))[:more]
    whole = b"".join(sent) + continued(engine, path, body, sent)
    assert told(whole, body) == told(b"".join(undisturbed), body)
