"""Answers of chat completions, as events and in one piece, and what a client of the responses API makes of its own."""

import json
from typing import Any

from slurminfer.router.relay.surfaces.responses.asked import read
from slurminfer.router.relay.surfaces.responses.history import History
from slurminfer.router.relay.surfaces.responses.translation import ResponsesTranslation

ID = "resp_0123456789ab0123456789abcdef0123"
NOW = 1_700_000_000.0
FUNCTION: dict[str, Any] = {
    "type": "function", "name": "weather", "description": "Of a city.", "strict": True,
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
}  # fmt: skip


def translation(**fields: Any) -> ResponsesTranslation:
    asked = read(json.dumps({"model": "m", "input": "Hi", **fields}).encode())
    return ResponsesTranslation(asked, History([], asked.items), ID, lambda: NOW)


def chat(**fields: Any) -> dict[str, Any]:
    """The chat request that stands for a request."""
    found: dict[str, Any] = json.loads(translation(**fields).body)
    return found


def event(delta: dict[str, Any] | None = None, finish: str | None = None, **fields: Any) -> bytes:
    choices = (
        [] if delta is None else [{"index": 0, "delta": delta, "finish_reason": finish, **fields.pop("choice", {})}]
    )
    return data({"id": "x", "object": "chat.completion.chunk", "model": "served", "choices": choices, **fields})


def data(value: Any) -> bytes:
    return b"data: " + json.dumps(value).encode() + b"\n\n"


DONE = b"data: [DONE]\n\n"
USAGE = {
    "prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12,
    "prompt_tokens_details": {"cached_tokens": 3}, "completion_tokens_details": {"reasoning_tokens": 2},
}  # fmt: skip


def answer(message: dict[str, Any], finish: str = "stop", **choice: Any) -> dict[str, Any]:
    choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": finish, **choice}
    return {"id": "x", "object": "chat.completion", "model": "served", "choices": [choice], "usage": USAGE}


def events_of(stream: bytes) -> list[dict[str, Any]]:
    """The events of a stream, each of which names its type twice."""
    found = []
    for one in filter(None, stream.split(b"\n\n")):
        if one.startswith(b":"):
            continue
        name, payload = one.split(b"\n")
        found.append(json.loads(payload.removeprefix(b"data: ")))
        assert name == b"event: " + found[-1]["type"].encode()
    return found
