"""What a record of a batch's input asks for, whatever format the file has.

Three forms, which one file may mix, here as JSON:

    {"prompt": "...", ...}           to /v1/completions
    {"messages": [...], ...}         to /v1/chat/completions
    {"custom_id": "...", "method": "POST", "url": "/v1/...", "body": {...}}     OpenAI's own batch lines

In the first two, "id" (a string or an integer; by default the record's number, from 1) names the result, and every
further key is a parameter of the request: max_tokens, temperature, stop, seed, whatever the engine understands.
OpenAI's lines get whole answers back, so what needs more than one text (n > 1, logprobs, tool calls) belongs there.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Id = str | int

_COMPLETIONS, _CHAT = "/v1/completions", "/v1/chat/completions"
GENERATES = (_COMPLETIONS, _CHAT)  # paths whose answers have choices
_PATH = re.compile(r"/v1(/[A-Za-z0-9_-]+)+")


@dataclass(frozen=True, slots=True)
class BatchRequest:
    """A row that can be sent to the endpoint."""

    shard: int
    index: int  # within the shard
    line: int  # in its file, from 1, for messages
    key: str  # what it asks for: 128 bits in hexadecimal, without model and defaults of the batch
    path: str  # from /v1/ on
    body: dict[str, Any]  # what the row says, without model and defaults of the batch
    whole_answer: bool = False  # OpenAI's form: the answer is kept as it is
    id: Id | None = None  # `custom_id` of OpenAI's form, `id` of ours
    turns: tuple[str, ...] = ()  # further user's messages, each sent after the answer before it
    prompt_bytes: int = 0  # about as long as what must be computed before the answer

    def with_defaults(self, model: str, defaults: Mapping[str, Any]) -> dict[str, Any]:
        """The body to send: what the row says, and where it says nothing, `model` and `defaults`."""
        generates = self.path in GENERATES
        added = {name: value for name, value in defaults.items() if generates and not _says(self.body, name)}
        return {"model": model, **added, **self.body}


class BadRowError(Exception):
    """A row asks for nothing that can be done. The message says why."""


def parse_request(line: int, value: object) -> BatchRequest | BadLine:
    """What the record with this number and value asks for."""
    try:
        return _parse(line, value)
    except _BadLineError as error:
        return BadLine(line, error.id, str(error))


class _BadLineError(Exception):
    def __init__(self, message: str, id: Id | None = None) -> None:
        self.id = id
        super().__init__(message)


def _parse(line: int, value: object) -> BatchRequest:
    if not isinstance(value, dict):
        raise _BadLineError("expected a JSON object")
    return _parse_openai(line, value) if "custom_id" in value else _parse_plain(line, value)


def _parse_plain(line: int, value: dict[str, Any]) -> BatchRequest:
    id = _id(value.pop("id", line))
    if ("prompt" in value) == ("messages" in value):
        raise _BadLineError("expected either 'prompt' or 'messages' (or an OpenAI batch line with 'custom_id')", id)
    if "prompt" in value and not isinstance(value["prompt"], str):
        raise _BadLineError("prompt: expected a string", id)
    if "messages" in value and not (isinstance(value["messages"], list) and value["messages"]):
        raise _BadLineError("messages: expected a list of at least one message", id)
    if value.get("n", 1) != 1:
        raise _BadLineError("n: expected 1; OpenAI batch lines can ask for more", id)
    _refuse_stream(value, id)
    return BatchRequest(line, id, _COMPLETIONS if "prompt" in value else _CHAT, value, whole_answer=False)


def _parse_openai(line: int, value: dict[str, Any]) -> BatchRequest:
    id = _id(value["custom_id"])
    if value.get("method", "POST") != "POST":
        raise _BadLineError("method: expected POST", id)
    path, body = value.get("url"), value.get("body")
    if not (isinstance(path, str) and _PATH.fullmatch(path)):
        raise _BadLineError("url: expected a path below /v1/, such as /v1/chat/completions", id)
    if not isinstance(body, dict):
        raise _BadLineError("body: expected a JSON object", id)
    _refuse_stream(body, id)
    return BatchRequest(line, id, path, body, whole_answer=True)


def _id(value: object) -> Id:
    if isinstance(value, bool) or not isinstance(value, Id):
        raise _BadLineError("id: expected a string or an integer")
    return value


def _refuse_stream(body: dict[str, Any], id: Id) -> None:
    if body.get("stream"):
        raise _BadLineError("stream: a batch has nobody to stream to", id)


def _says(body: dict[str, Any], name: str) -> bool:
    """`max_completion_tokens` is the newer name of `max_tokens`; engines refuse or mix up both at once."""
    return name in body or (name == "max_tokens" and "max_completion_tokens" in body)
