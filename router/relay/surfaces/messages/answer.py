"""A whole answer of chat completions as a message of Anthropic's API."""

from collections.abc import Collection, Iterator
from typing import Any

import msgspec

from ..translation import TranslationError
from .told import UNSIGNED, Said, Told, ToolCall, ending, usage


def message(answer: dict[str, Any], id_: str, model: str | None, stops: Collection[str]) -> dict[str, Any]:
    """The message.

    Args:
        answer: of chat completions.
        id_: of the message.
        model: that the request has asked for.
        stops: its stop sequences.

    Raises TranslationError for what is no answer.
    """
    told = read(answer)
    choice = told.choices[0]
    said = choice.message or Said()
    content = [*_blocks(said, id_)]
    end = ending(choice, stops, calls=bool(said.tool_calls), refuses=bool(said.refusal))
    return {
        **opening(id_, told.model or model),
        "content": content,
        "stop_reason": end.reason,
        "stop_sequence": end.sequence,
        "usage": usage(told.usage),
    }


def read(answer: dict[str, Any]) -> Told:
    """A whole answer. Raises TranslationError for what is none."""
    try:
        told = msgspec.convert(answer, Told)
    except (msgspec.ValidationError, RecursionError) as error:
        raise TranslationError(str(error)) from error
    if not told.choices:
        raise TranslationError("it has no choices")
    return told


def opening(id_: str, model: str | None) -> dict[str, Any]:
    """What is known of a message when it begins."""
    return {
        "id": id_,
        "type": "message",
        "role": "assistant",
        "model": model or "",
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
    }


def call_id(call: ToolCall, message_id: str, index: int) -> str:
    """The id of a tool call; a made one where the engine gives none."""
    return call.id or f"toolu_{message_id.removeprefix('msg_')}_{index}"


def _blocks(said: Said, id_: str) -> Iterator[dict[str, Any]]:
    if said.thinking:
        yield {"type": "thinking", "thinking": said.thinking, "signature": UNSIGNED}
    if said.text.strip():
        yield {"type": "text", "text": said.text}
    for index, call in enumerate(said.tool_calls or ()):
        function = call.function
        name, arguments = (function.name, function.arguments) if function is not None else (None, None)
        yield {"type": "tool_use", "id": call_id(call, id_, index), "name": name or "", "input": _input(arguments)}


def _input(arguments: Any) -> dict[str, Any]:
    """The arguments of a call. What is no JSON object is given as none, so that the tool says what it misses."""
    try:
        found = msgspec.json.decode(arguments) if isinstance(arguments, str) else arguments
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
