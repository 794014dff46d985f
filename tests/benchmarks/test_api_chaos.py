"""Answers of every API are what they would have been when their workers are killed, and the checks see what is not."""

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.api.chaos.measure import Setting, run
from benchmarks.api.chaos.told import BrokeOffError, FormError, read
from benchmarks.api.chaos.workers import KILL_CORE
from slurminfer.nodes.native.model.fused import library

from ..support.compiled_library import compiled_library

FEW = (
    "chat, sampled", "chat, forced calls", "chat, thinking and calls", "completion, echo", "messages",
    "responses, schema", "embeddings", "two choices, thinking and calls", "two choices, forced calls, whole",
    "completions of two prompts",
)  # fmt: skip


@pytest.mark.process
@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.skipif(library.place() is None, reason="needs g++ and a CPU with AVX2")
def test_no_answer_of_several_apis_is_another_one_when_a_worker_is_killed(tmp_path: Path) -> None:
    """The benchmark asks for every kind, and kills more."""
    compiled_library()
    found = run(tmp_path, Setting(faults=(KILL_CORE,), losses=0, workers=2, replaces=False, kinds=FEW))
    assert found["wrong_answers"] == 0, found["examples"]
    assert found["faults: kill core"] == 1
    assert found["lost in the middle"] >= 1


def chat(*payloads: object) -> bytes:
    names = {"id": "a", "object": "o", "created": 1, "model": "m"}
    events = [each if isinstance(each, str) else json.dumps({**names, **each}) for each in payloads]  # type: ignore[dict-item]
    return "".join(f"data: {event}\n\n" for event in events).encode()


def said(text: str, finish: str | None = None) -> dict:
    return {"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": finish}]}


def called(**fields: object) -> dict:
    return {"choices": [{"index": 0, "delta": {"tool_calls": [fields]}, "finish_reason": None}]}


END = (said("", "stop"), "[DONE]")


def test_what_chat_says() -> None:
    whole = read("chat", chat(said("Yes"), said(", so."), *END))
    assert whole["choices"][0]["text"] == "Yes, so."
    assert read("chat", chat(said("Yes, so."), *END)) == whole
    assert read("chat", chat(said("Yes so."), *END)) != whole


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (chat(said("a"), *END, "[DONE]"), "DONE"),
        (chat(said("a"), said("", "stop")), "DONE"),
        (chat(said("a"), "[DONE]"), "finish_reason"),
        (chat(*END[:1], said("a"), "[DONE]"), "after the finish_reason"),
        (chat(said("a"), {**said("b"), "id": "b"}, *END), "id is not the same"),
        (chat(said("a"), *END)[:-1], "middle of an event"),
        (chat(called(index=0, id="x", function={}), called(index=0, id="y", function={}), *END), "2 ids"),
        (chat(called(index=1, id="x", function={}), *END), "skipped"),
    ],
)
def test_what_is_wrong_with_chat(data: bytes, what: str) -> None:
    with pytest.raises(FormError, match=what):
        read("chat", data)


def test_a_stream_that_says_that_it_broke_off() -> None:
    with pytest.raises(BrokeOffError, match="no worker"):
        read("chat", chat(said("a")) + b'data: {"error": {"message": "no worker"}}\n\n')


def test_sequence_numbers_have_no_gaps() -> None:
    created: dict[str, Any] = {"type": "response.created", "sequence_number": 0, "response": {"id": "r"}}
    done: dict[str, Any] = {"type": "response.completed", "sequence_number": 2, "response": {"id": "r", "output": []}}
    data = "".join(f"event: {each['type']}\ndata: {json.dumps(each)}\n\n" for each in (created, done)).encode()
    with pytest.raises(FormError, match="gaps"):
        read("responses", data)
    assert read("responses", data.replace(b'"sequence_number": 2', b'"sequence_number": 1'))


def test_blocks_of_messages_end() -> None:
    start: dict[str, Any] = {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
    ends: list[dict[str, Any]] = [
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}},
        {"type": "message_stop"},
    ]
    events: list[dict[str, Any]] = [{"type": "message_start"}, start, *ends]
    data = "".join(f"event: {each['type']}\ndata: {json.dumps(each)}\n\n" for each in events).encode()
    with pytest.raises(FormError, match="does not end"):
        read("messages", data)
