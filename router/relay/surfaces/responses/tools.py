"""Tools of the responses API as tools of chat completions. Only functions are taken: nothing else runs here.

Functions may stand in a namespace, which chat completions do not have: there their names begin with it.
"""

from collections.abc import Mapping, Sequence
from itertools import starmap
from typing import Any, NamedTuple

import msgspec
from msgspec import Raw

from ..translation import TranslationError

MOST_TOOLS = 1_024
NAMESPACE = "namespace"
_BETWEEN = "__"  # a namespace and the name of a function: engines take letters, digits, _ and - in names
_NO_NAME = (
    "missing; here name, description and parameters stand beside type, not within function as they do for chat "
    "completions"
)
_PLAIN_CHOICES = ("none", "auto", "required")
_CHOICES = "'none', 'auto', 'required', {type: 'function', name} or {type: 'allowed_tools', mode, tools}"


class Function(msgspec.Struct, omit_defaults=True):
    """A function of a namespace."""

    type: str = ""
    name: str | None = None
    description: str | None = None
    parameters: Raw = Raw()
    strict: bool | None = None


class Tool(Function, omit_defaults=True):
    """A tool that a model may call, or a namespace of them."""

    tools: list[Function] | None = None


class Called(NamedTuple):
    """A function as the responses API names it."""

    name: str
    namespace: str | None = None


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
    count = sum(len(tool.tools or ()) if tool.type == NAMESPACE else 1 for tool in tools)
    if count > MOST_TOOLS:  # before anything is made of them: others wait
        raise TranslationError(f"tools has {count} functions: expected at most {MOST_TOOLS}", "tools")
    for place, tool in enumerate(tools):
        if tool.type == NAMESPACE and tool.name:
            for inner, function in enumerate(tool.tools or []):
                _check_function(f"tools[{place}].tools[{inner}]", function)
        else:
            _check_function(f"tools[{place}]", tool)


def check_choice(choice: str | ToolChoice | None, tools: Sequence[Tool]) -> None:
    """Raise TranslationError for a choice that is none."""
    if choice is None or choice in _PLAIN_CHOICES:
        return
    if isinstance(choice, str):
        raise TranslationError(f"tool_choice = {choice[:80]!r}: expected {_CHOICES}", "tool_choice")
    known = functions(tools)
    if choice.type == "function":
        _require_tool("tool_choice.name", choice.name, known)
    elif choice.type == "allowed_tools":
        if choice.mode not in ("auto", "required"):
            raise TranslationError("tool_choice.mode: expected 'auto' or 'required'", "tool_choice.mode")
        for place, allowed in enumerate(choice.tools or []):
            if allowed.type != "function":
                param = f"tool_choice.tools[{place}].type"
                raise TranslationError(f"{param} = {allowed.type[:80]!r}: expected 'function'", param)
            _require_tool(f"tool_choice.tools[{place}].name", allowed.name, known)
    else:
        raise TranslationError(f"tool_choice.type = {choice.type[:80]!r}: expected {_CHOICES}", "tool_choice.type")


def chat_tools(tools: Sequence[Tool], choice: str | ToolChoice | None) -> Mapping[str, Any]:
    """`tools` and `tool_choice` of chat completions."""
    known = functions(tools)
    if not known:
        return {}
    if isinstance(choice, ToolChoice) and choice.type == "allowed_tools":
        names = {allowed.name for allowed in choice.tools or []}
        kept = {name: tool for name, tool in known.items() if name in names}
        return {"tools": list(starmap(_chat_tool, kept.items())), "tool_choice": choice.mode} if kept else {}
    found: dict[str, Any] = {"tools": list(starmap(_chat_tool, known.items()))}
    if isinstance(choice, ToolChoice):
        found["tool_choice"] = {"type": "function", "function": {"name": choice.name}}
    elif choice is not None:
        found["tool_choice"] = choice
    return found


def functions(tools: Sequence[Tool]) -> dict[str, Function]:
    """The functions by the names that they have in chat completions."""
    found: dict[str, Function] = {}
    for tool in tools:
        if tool.type == NAMESPACE:
            for function in tool.tools or []:
                found[chat_name(function.name or "", tool.name)] = function
        else:
            found[tool.name or ""] = tool
    return found


def chat_name(name: str, namespace: str | None) -> str:
    """The name of a function in chat completions."""
    return name if namespace is None else f"{namespace}{_BETWEEN}{name}"


def namespaces(tools: Sequence[Tool]) -> dict[str, Called]:
    """The functions of namespaces, by the names that they have in chat completions."""
    return {
        chat_name(function.name or "", tool.name): Called(function.name or "", tool.name)
        for tool in tools
        if tool.type == NAMESPACE
        for function in tool.tools or []
    }


def shown_tool(tool: Tool) -> dict[str, Any]:
    """A tool as a response shows it."""
    if tool.type == NAMESPACE:
        return {**_shown(tool), "tools": [_shown(function) for function in tool.tools or []]}
    return _shown(tool)


def _shown(tool: Function) -> dict[str, Any]:
    found: dict[str, Any] = {"type": tool.type, "name": tool.name, "description": tool.description}
    return found if tool.type == NAMESPACE else {**found, "parameters": tool.parameters or None, "strict": tool.strict}


def _check_function(param: str, tool: Function) -> None:
    if tool.type != "function":
        message = f"{param}.type = {tool.type[:80]!r}: expected 'function', the only type that is taken here"
        raise TranslationError(message, f"{param}.type")
    if not tool.name:
        raise TranslationError(f"{param}.name: {_NO_NAME}", f"{param}.name")
    if tool.parameters and not bytes(tool.parameters).startswith((b"{", b"null")):
        raise TranslationError(f"{param}.parameters: expected an object", f"{param}.parameters")


def _chat_tool(name: str, tool: Function) -> dict[str, Any]:
    function: dict[str, Any] = {"name": name}
    if tool.description is not None:
        function["description"] = tool.description
    if tool.parameters and bytes(tool.parameters) != b"null":
        function["parameters"] = tool.parameters
    if tool.strict is not None:
        function["strict"] = tool.strict
    return {"type": "function", "function": function}


def _require_tool(param: str, name: str | None, known: Mapping[str, Function]) -> None:
    if name not in known:
        valid = ", ".join(list(known)[:20]) or "none, since there are no tools"
        raise TranslationError(f"{param} = {(name or '')[:80]!r}: expected the name of a tool: {valid}", param)
