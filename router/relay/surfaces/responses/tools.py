"""Tools of the responses API as tools of chat completions. Only functions are taken: nothing else runs here."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Raw

from ..translation import TranslationError

MOST_TOOLS = 1_024
_PLAIN_CHOICES = ("none", "auto", "required")
_CHOICES = "'none', 'auto', 'required', {type: 'function', name} or {type: 'allowed_tools', mode, tools}"


class Tool(msgspec.Struct, omit_defaults=True):
    """A tool that a model may call."""

    type: str = ""
    name: str | None = None
    description: str | None = None
    parameters: Raw = Raw()
    strict: bool | None = None


class AllowedTool(msgspec.Struct):
    """A tool of `tool_choice.tools`."""

    type: str = ""
    name: str | None = None


class ToolChoice(msgspec.Struct, omit_defaults=True):
    """A `tool_choice` that is no string."""

    type: str = ""
    name: str | None = None
    mode: str | None = None
    tools: list[AllowedTool] | None = None


def check_tools(tools: Sequence[Tool]) -> None:
    """Raise TranslationError for a tool that is no function."""
    if len(tools) > MOST_TOOLS:
        raise TranslationError(f"tools has {len(tools)} entries: expected at most {MOST_TOOLS}", "tools")
    for place, tool in enumerate(tools):
        if tool.type != "function":
            message = f"tools[{place}].type = {tool.type[:80]!r}: expected 'function', the only type that is taken here"
            raise TranslationError(message, f"tools[{place}].type")
        if not tool.name:
            raise TranslationError(f"tools[{place}].name: expected a name", f"tools[{place}].name")
        if tool.parameters and not bytes(tool.parameters).startswith((b"{", b"null")):
            raise TranslationError(f"tools[{place}].parameters: expected an object", f"tools[{place}].parameters")


def check_choice(choice: str | ToolChoice | None, tools: Sequence[Tool]) -> None:
    """Raise TranslationError for a choice that is none."""
    if choice is None or choice in _PLAIN_CHOICES:
        return
    if isinstance(choice, str):
        raise TranslationError(f"tool_choice = {choice[:80]!r}: expected {_CHOICES}", "tool_choice")
    if choice.type == "function":
        _require_tool("tool_choice.name", choice.name, tools)
    elif choice.type == "allowed_tools":
        if choice.mode not in ("auto", "required"):
            raise TranslationError("tool_choice.mode: expected 'auto' or 'required'", "tool_choice.mode")
        for place, allowed in enumerate(choice.tools or []):
            if allowed.type != "function":
                param = f"tool_choice.tools[{place}].type"
                raise TranslationError(f"{param} = {allowed.type[:80]!r}: expected 'function'", param)
            _require_tool(f"tool_choice.tools[{place}].name", allowed.name, tools)
    else:
        raise TranslationError(f"tool_choice.type = {choice.type[:80]!r}: expected {_CHOICES}", "tool_choice.type")


def chat_tools(tools: Sequence[Tool], choice: str | ToolChoice | None) -> Mapping[str, Any]:
    """`tools` and `tool_choice` of chat completions."""
    if not tools:
        return {}
    if isinstance(choice, ToolChoice) and choice.type == "allowed_tools":
        names = {allowed.name for allowed in choice.tools or []}
        kept = [tool for tool in tools if tool.name in names]
        return {"tools": list(map(_chat_tool, kept)), "tool_choice": choice.mode} if kept else {}
    found: dict[str, Any] = {"tools": list(map(_chat_tool, tools))}
    if isinstance(choice, ToolChoice):
        found["tool_choice"] = {"type": "function", "function": {"name": choice.name}}
    elif choice is not None:
        found["tool_choice"] = choice
    return found


def shown_tool(tool: Tool) -> dict[str, Any]:
    """A tool as a response shows it."""
    return {
        "type": tool.type,
        "name": tool.name,
        "description": tool.description,
        "parameters": tool.parameters or None,
        "strict": tool.strict,
    }


def _chat_tool(tool: Tool) -> dict[str, Any]:
    function: dict[str, Any] = {"name": tool.name}
    if tool.description is not None:
        function["description"] = tool.description
    if tool.parameters and bytes(tool.parameters) != b"null":
        function["parameters"] = tool.parameters
    if tool.strict is not None:
        function["strict"] = tool.strict
    return {"type": "function", "function": function}


def _require_tool(param: str, name: str | None, tools: Sequence[Tool]) -> None:
    if not any(tool.name == name for tool in tools):
        valid = ", ".join(tool.name or "" for tool in tools[:20]) or "none, since there are no tools"
        raise TranslationError(f"{param} = {(name or '')[:80]!r}: expected the name of a tool: {valid}", param)
