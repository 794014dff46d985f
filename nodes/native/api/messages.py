"""Messages of a chat as its template wants them: contents as strings, arguments of tool calls as objects."""

from collections.abc import Mapping
from typing import Any

import msgspec

from .body import is_too_deep
from .errors import ApiError, short

ROLES = ("system", "developer", "user", "assistant", "tool", "function")
MAX_MESSAGES = 4096
_MAX_PARTS = 16384  # of all messages
_MAX_TOOL_CALLS = 1024  # of one message


class Arguments(dict[str, Any]):
    """Arguments of a tool call, which some templates take for an object and some for a string of JSON.

    OpenAI has a string, transformers documents an object. This is an object (`arguments.a`, `arguments | items`,
    `arguments | tojson`) that is written as the client's own text (`{{ arguments }}`, `'...' + arguments`).
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


def turns(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The messages for the template. What is null or an empty list is left out. Raises ApiError."""
    if len(messages) > MAX_MESSAGES:
        message = f"messages has {len(messages)} entries: expected at most {MAX_MESSAGES}"
        raise ApiError(400, message, param="messages")
    parts = sum(len(message["content"]) for message in messages if isinstance(message.get("content"), list))
    if parts > _MAX_PARTS:
        raise ApiError(400, f"messages have {parts} parts in all: expected at most {_MAX_PARTS}", param="messages")
    return [_turn(f"messages[{index}]", message) for index, message in enumerate(messages)]


def _turn(param: str, message: Mapping[str, Any]) -> dict[str, Any]:
    role = message.get("role")
    if role not in ROLES:
        expected = f"expected one of: {', '.join(ROLES)}"
        raise ApiError(400, f"{param}.role = {short(role)}: {expected}", param=f"{param}.role")
    turn = {name: value for name, value in message.items() if value is not None and value != []}
    turn["content"] = _content(f"{param}.content", message.get("content"), may_lack=role == "assistant")
    if "tool_calls" in turn:
        turn["tool_calls"] = _tool_calls(f"{param}.tool_calls", turn["tool_calls"])
    if "function_call" in turn:  # what came before tool_calls
        turn["function_call"] = _function(f"{param}.function_call", turn["function_call"])
    return turn


def _content(param: str, content: Any, *, may_lack: bool) -> str:
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "".join(_text(f"{param}[{index}]", part) for index, part in enumerate(content))
    if content is None and may_lack:
        return ""
    raise ApiError(400, f"{param} = {short(content)}: expected a string or a list of text parts", param=param)


def _text(param: str, part: Any) -> str:
    if isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str):
        return str(part["text"])
    expected = 'expected {"type": "text", "text": string}: this engine reads text only'
    raise ApiError(400, f"{param} = {short(part)}: {expected}", param=param)


def _tool_calls(param: str, calls: Any) -> list[dict[str, Any]]:
    if not isinstance(calls, list) or len(calls) > _MAX_TOOL_CALLS:
        raise ApiError(400, f"{param} = {short(calls)}: expected a list of at most {_MAX_TOOL_CALLS}", param=param)
    return [_tool_call(f"{param}[{index}]", call) for index, call in enumerate(calls)]


def _tool_call(param: str, call: Any) -> dict[str, Any]:
    if not isinstance(call, dict):
        raise ApiError(400, f"{param} = {short(call)}: expected an object", param=param)
    return {**call, "function": _function(f"{param}.function", call.get("function"))}


def _function(param: str, function: Any) -> dict[str, Any]:
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        expected = 'expected {"name": string, "arguments": string or object}'
        raise ApiError(400, f"{param} = {short(function)}: {expected}", param=param)
    return {**function, "arguments": _arguments(f"{param}.arguments", function.get("arguments"))}


def _arguments(param: str, arguments: Any) -> Arguments | str:
    """An object where there is one. What a model has written that is no JSON object stays the text that it is."""
    if arguments is None or isinstance(arguments, dict):
        value = arguments or {}
        return Arguments(value, msgspec.json.encode(value).decode())
    if not isinstance(arguments, str):
        raise ApiError(400, f"{param} = {short(arguments)}: expected a string of JSON or an object", param=param)
    try:
        value = msgspec.json.decode(arguments) if arguments.strip() else {}
    except (ValueError, RecursionError):
        return arguments
    if not isinstance(value, dict) or is_too_deep(value):
        return arguments
    return Arguments(value, arguments or "{}")
