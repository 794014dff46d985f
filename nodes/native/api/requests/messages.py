"""Messages of a chat, checked, with contents as strings and without what is null."""

from collections.abc import Mapping
from typing import Any

from ..errors import ApiError, short

ROLES = ("system", "developer", "user", "assistant", "tool", "function")
MAX_MESSAGES = 4096
_MAX_PARTS = 16384  # of all messages
_MAX_TOOL_CALLS = 1024  # of one message


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
    if role == "assistant" and isinstance(turn.get("reasoning"), str):  # vLLM's name, which no template knows
        turn.setdefault("reasoning_content", turn["reasoning"])
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
    arguments = function.get("arguments")
    if not isinstance(arguments, str | dict | None):
        param = f"{param}.arguments"
        raise ApiError(400, f"{param} = {short(arguments)}: expected a string of JSON or an object", param=param)
    return {**function, "arguments": arguments or {}}
