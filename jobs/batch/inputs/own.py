"""Rows that say themselves what they ask for: see request.py."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from .messages import messages_of, shown
from .request import CHAT, COMPLETIONS, BadRowError, Id
from .row import Row

_PATH = re.compile(r"/v1(/[A-Za-z0-9_-]+)+")
_TEXTS = ("id", "prompt", "custom_id", "method", "url", "model", "user", "suffix")  # which are text in CSV as well


@dataclass(slots=True)
class Asked:
    """What a row asks for."""

    path: str
    body: dict[str, Any]
    id: Id | None
    turns: tuple[str, ...] = ()
    whole_answer: bool = False


def parse_own(row: Row) -> Asked:
    """What a row asks for. Raises BadRowError."""
    value = row.value
    assert value is not None
    if "custom_id" in value:
        return _openai(_from_text(value) if row.format == "csv" else value)
    if row.format == "csv":
        value = _from_text(value)
    body = {name: each for name, each in value.items() if each is not None}
    id = checked_id(body.pop("id", None))
    turns = _turns(body.pop("turns", ()))
    if ("prompt" in body) == ("messages" in body):
        raise BadRowError(
            "expected either 'prompt' or 'messages' (or an OpenAI batch line with 'custom_id'), "
            f"the row has: {', '.join(list(value)[:40]) or 'nothing'}"
        )
    if "prompt" in body:
        if not isinstance(body["prompt"], str):
            raise BadRowError(f"prompt: expected a string, got {shown(body['prompt'])}")
        return Asked(COMPLETIONS, body, id, turns)
    body["messages"] = messages_of("messages", body["messages"])
    return Asked(CHAT, body, id, turns)


def checked_id(value: object) -> Id | None:
    """An id; None where there is none. Raises BadRowError."""
    if value is not None and (isinstance(value, bool) or not isinstance(value, Id)):
        raise BadRowError(f"id: expected a string or an integer, got {shown(value)}")
    return value


def _openai(value: Mapping[str, Any]) -> Asked:
    id = checked_id(value["custom_id"])
    if id is None:
        raise BadRowError("custom_id: expected a string or an integer, got null")
    if value.get("method", "POST") != "POST":
        raise BadRowError(f"method: expected POST, got {shown(value['method'])}")
    path, body = value.get("url"), value.get("body")
    if not (isinstance(path, str) and _PATH.fullmatch(path)):
        raise BadRowError(f"url: expected a path below /v1/, such as /v1/chat/completions, got {shown(path)}")
    if not isinstance(body, dict):
        raise BadRowError(f"body: expected a JSON object, got {shown(body)}")
    return Asked(path, body, id, whole_answer=True)


def _turns(value: object) -> tuple[str, ...]:
    if not isinstance(value, (list, tuple)) or not all(isinstance(each, str) for each in value):
        raise BadRowError(f"turns: expected a list of strings, got {shown(value)}")
    return tuple(value)


def _from_text(value: Mapping[str, Any]) -> dict[str, Any]:
    """A row of CSV, whose parameters are JSON where they can be read so, and not said where they are empty."""
    found = {}
    for name, text in value.items():
        if text:
            found[name] = text if name in _TEXTS else _parsed(text)
        elif name == "prompt":
            found[name] = text
    return found


def _parsed(text: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return text
