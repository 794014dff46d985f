"""Lines of a batch's input, and what each of them asks for.

Three forms, which one file may mix:

    {"prompt": "...", ...}           to /v1/completions
    {"messages": [...], ...}         to /v1/chat/completions
    {"custom_id": "...", "method": "POST", "url": "/v1/...", "body": {...}}     OpenAI's own batch lines

In the first two, "id" (a string or an integer; by default the line's number, from 1) names the result, and every
further key is a parameter of the request: max_tokens, temperature, stop, seed, whatever the engine understands.
OpenAI's lines get whole answers back, so what needs more than one text (n > 1, logprobs, tool calls) belongs there.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from ....core.errors import BatchError

Id = str | int

_COMPLETIONS, _CHAT = "/v1/completions", "/v1/chat/completions"


class BadLineError(Exception):
    """A line that asks for nothing that can be done; `id` where it has one."""

    def __init__(self, message: str, id: Id | None = None) -> None:
        self.id = id
        super().__init__(message)


@dataclass(frozen=True, slots=True)
class BatchRequest:
    """One line, ready to be sent."""

    line: int
    id: Id
    path: str  # from /v1/ on
    body: dict[str, Any]
    whole_answer: bool  # OpenAI's form: the answer is kept as it is

    def with_defaults(self, model: str, defaults: Mapping[str, Any]) -> dict[str, Any]:
        """The body to send: what the line says, and where it says nothing, `model` and `defaults`."""
        generates = self.path in (_COMPLETIONS, _CHAT)
        added = {name: value for name, value in defaults.items() if generates and not _says(self.body, name)}
        return {"model": model, **added, **self.body}


def read_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Every line that is not blank, with its number from 1; never more than one in memory. Raises BatchError."""
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if line := line.strip():
                    yield number, line
    except OSError as error:
        raise BatchError(f"cannot read {path}: {error.strerror}") from error


def count_lines(path: Path) -> int:
    """The number of lines that are not blank. Raises BatchError."""
    return sum(1 for _ in read_lines(path))


def parse_line(number: int, line: bytes) -> BatchRequest:
    """What a line asks for. Raises BadLineError."""
    try:
        value = msgspec.json.decode(line)
    except msgspec.DecodeError as error:
        raise BadLineError(f"not JSON: {error}") from error
    except RecursionError as error:
        raise BadLineError("nested too deeply") from error
    if not isinstance(value, dict):
        raise BadLineError("expected a JSON object")
    if "custom_id" in value:
        return _parse_openai(number, value)
    return _parse_plain(number, value)


def _parse_plain(number: int, value: dict[str, Any]) -> BatchRequest:
    id = _id(value.pop("id", number))
    if ("prompt" in value) == ("messages" in value):
        raise BadLineError("expected either 'prompt' or 'messages' (or an OpenAI batch line with 'custom_id')", id)
    if "prompt" in value and not isinstance(value["prompt"], str):
        raise BadLineError("prompt: expected a string", id)
    if "messages" in value and not (isinstance(value["messages"], list) and value["messages"]):
        raise BadLineError("messages: expected a list of at least one message", id)
    if value.get("n", 1) != 1:
        raise BadLineError("n: expected 1; OpenAI batch lines can ask for more", id)
    _refuse_stream(value, id)
    return BatchRequest(number, id, _COMPLETIONS if "prompt" in value else _CHAT, value, whole_answer=False)


def _parse_openai(number: int, value: dict[str, Any]) -> BatchRequest:
    id = _id(value["custom_id"])
    if value.get("method", "POST") != "POST":
        raise BadLineError("method: expected POST", id)
    path, body = value.get("url"), value.get("body")
    if not (isinstance(path, str) and path.startswith("/v1/")):
        raise BadLineError("url: expected a path below /v1/, such as /v1/chat/completions", id)
    if not isinstance(body, dict):
        raise BadLineError("body: expected a JSON object", id)
    _refuse_stream(body, id)
    return BatchRequest(number, id, path, body, whole_answer=True)


def _id(value: object) -> Id:
    if isinstance(value, bool) or not isinstance(value, Id):
        raise BadLineError("id: expected a string or an integer")
    return value


def _refuse_stream(body: dict[str, Any], id: Id) -> None:
    if body.get("stream"):
        raise BadLineError("stream: a batch has nobody to stream to", id)


def _says(body: dict[str, Any], name: str) -> bool:
    """`max_completion_tokens` is the newer name of `max_tokens`; engines refuse or mix up both at once."""
    return name in body or (name == "max_tokens" and "max_completion_tokens" in body)
