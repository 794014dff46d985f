"""Arguments of tool calls in messages: a string of JSON with OpenAI, an object for most chat templates."""

import json
from collections.abc import Mapping
from typing import Any


class Arguments(dict[str, Any]):
    """Arguments that a template may take for an object or for a string.

    They are an object (`arguments.a`, `arguments | items`, `arguments | tojson`) that is written as the client's own
    text (`{{ arguments }}`, `'...' + arguments`).
    """

    def __init__(self, value: Mapping[str, Any], text: str) -> None:
        super().__init__(value)
        self._text = text

    def __str__(self) -> str:
        return self._text

    def __add__(self, other: str) -> str:
        return self._text + other

    def __radd__(self, other: str) -> str:
        return other + self._text


def with_arguments(message: Mapping[str, Any]) -> dict[str, Any]:
    """The message with the arguments of its calls as `Arguments`. Its form has been checked."""
    changed: dict[str, Any] = {}
    if "tool_calls" in message:
        changed["tool_calls"] = [{**call, "function": _called(call["function"])} for call in message["tool_calls"]]
    if "function_call" in message:  # what came before tool_calls
        changed["function_call"] = _called(message["function_call"])
    return {**message, **changed}


def _called(function: Mapping[str, Any]) -> dict[str, Any]:
    return {**function, "arguments": _read(function["arguments"])}


def _read(arguments: Any) -> Any:
    """An object where there is one. What a model has written that is no JSON object stays the text that it is."""
    if isinstance(arguments, dict):
        return Arguments(arguments, json.dumps(arguments, ensure_ascii=False))
    try:
        value = json.loads(arguments)
    except (ValueError, RecursionError):
        return arguments
    return Arguments(value, arguments) if isinstance(value, dict) else arguments
