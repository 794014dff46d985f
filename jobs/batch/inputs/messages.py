"""A row's messages: as OpenAI's API has them, or as turns of {"from", "value"} (ShareGPT)."""

from typing import Any

import msgspec

from .request import BadRowError

_ROLES = {
    "human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "chatgpt": "assistant",
    "bard": "assistant", "bing": "assistant", "model": "assistant", "system": "system", "tool": "tool",
}  # fmt: skip


def messages_of(name: str, value: Any) -> list[dict[str, Any]]:
    """The messages of a column: a list, or its JSON. Raises BadRowError, which says `name`."""
    if isinstance(value, str):
        value = _decoded(name, value)
    if not isinstance(value, list) or not value:
        raise BadRowError(f"{name}: expected a list of at least one message, got {shown(value)}")
    return [_message(name, place, each) for place, each in enumerate(value)]


def size_of(messages: list[Any]) -> int:
    """Characters of all texts."""
    size = 0
    for message in messages:
        content = message.get("content") if isinstance(message, dict) else None
        if isinstance(content, str):
            size += len(content)
        elif isinstance(content, list):
            texts = (part.get("text") for part in content if isinstance(part, dict))
            size += sum(len(text) for text in texts if isinstance(text, str))
    return size


def shown(value: object) -> str:
    """A value as a message shows it."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _message(name: str, place: int, value: Any) -> dict[str, Any]:
    if isinstance(value, dict):
        role, content = value.get("role"), value.get("content")
        if role is None and isinstance(value.get("from"), str) and isinstance(value.get("value"), str):
            return {"role": _role(name, place, value["from"]), "content": value["value"]}
        if isinstance(role, str) and (content is not None or role == "assistant"):
            return {key: each for key, each in value.items() if each is not None or key == "content"}
    raise BadRowError(f'{name}[{place}]: expected {{"role", "content"}} or {{"from", "value"}}, got {shown(value)}')


def _role(name: str, place: int, speaker: str) -> str:
    role = _ROLES.get(speaker.lower())
    if role is None:
        raise BadRowError(f"{name}[{place}]: from = {speaker!r}: expected one of {', '.join(_ROLES)}")
    return role


def _decoded(name: str, text: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise BadRowError(f"{name}: expected a list of messages or its JSON, got {shown(text)}") from error
