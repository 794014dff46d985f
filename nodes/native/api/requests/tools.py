"""The tools of a chat request: which functions there are, which may be called, and whether one must be."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ..errors import ApiError, short

MAX_TOOLS = 512
_MAX_NAME = 128
_NAME = re.compile(rf"[\w.:/-]{{1,{_MAX_NAME}}}", re.ASCII)
_CHOICES = '"none", "auto", "required", or {"type": "function", "function": {"name": ...}}'
_FUNCTION = '{"name": string, "description": string, "parameters": JSON schema}'
_ELSEWHERE = (
    "; this tool has its name beside type, as Anthropic's API and /v1/responses write tools: put name, description and "
    "parameters (Anthropic's input_schema) into function"
)
_ALLOWED = '{"type": "allowed_tools", "allowed_tools": {"mode": "auto" or "required", "tools": [...]}}'

Mode = Literal["none", "auto", "required"]


@dataclass(frozen=True, slots=True)
class Function:
    """A function that may be called."""

    name: str
    parameters: Mapping[str, Any]  # a JSON schema
    strict: bool  # its arguments must be valid


@dataclass(frozen=True, slots=True)
class Toolset:
    """What a request says of tools."""

    tools: Sequence[dict[str, Any]] = ()  # as the chat template gets them
    functions: tuple[Function, ...] = ()  # that may be called
    mode: Mode = "none"
    parallel: bool = True  # several calls in one answer are allowed

    @property
    def schemas(self) -> dict[str, Mapping[str, Any]]:
        """The parameters of each function that may be called."""
        return {function.name: function.parameters for function in self.functions}


def toolset(tools: Sequence[Any] | None, choice: Any, parallel: bool | None) -> Toolset:
    """What `tools`, `tool_choice` and `parallel_tool_calls` say together. Raises ApiError."""
    if len(tools or ()) > MAX_TOOLS:
        message = f"tools has {len(tools or ())} entries: expected at most {MAX_TOOLS}"
        raise ApiError(400, message, param="tools")
    functions = {}
    for index, tool in enumerate(tools or ()):
        function = _function(f"tools[{index}]", tool)
        if function.name in functions:
            param = f"tools[{index}].function.name"
            raise ApiError(400, f"{param} = {short(function.name)}: there are two of that name", param=param)
        functions[function.name] = function
    mode, allowed = _choice(choice, functions)
    is_named = isinstance(choice, dict) and choice.get("type") == "function"
    if not functions and mode == "required":
        raise ApiError(400, f"tool_choice = {short(choice)} is only allowed with tools", param="tool_choice")
    if not functions or mode == "none":
        return Toolset()
    return Toolset(
        tuple(_written(tool) for tool in tools or ()),
        tuple(functions[name] for name in allowed),
        mode,
        parallel is not False and not is_named,
    )


def _function(param: str, tool: Any) -> Function:
    if not isinstance(tool, dict) or tool.get("type", "function") != "function":
        kind = tool.get("type") if isinstance(tool, dict) else tool
        expected = 'expected "function": others, such as custom tools, need OpenAI\'s own models'
        raise ApiError(400, f"{param}.type = {short(kind)}: {expected}", param=f"{param}.type")
    function, param = tool.get("function"), f"{param}.function"
    if not isinstance(function, dict):
        hint = _ELSEWHERE if "name" in tool else ""
        raise ApiError(400, f"{param} = {short(function)}: expected {_FUNCTION}{hint}", param=param)
    name, parameters, strict = function.get("name"), function.get("parameters"), function.get("strict")
    for key, value, is_valid, expected in (
        ("name", name, isinstance(name, str) and _NAME.fullmatch(name), f"1 to {_MAX_NAME} letters, digits and _.:/-"),
        ("parameters", parameters, isinstance(parameters, dict | None), "a JSON schema, which is an object"),
        ("strict", strict, isinstance(strict, bool | None), "true or false"),
    ):
        if not is_valid:
            raise ApiError(400, f"{param}.{key} = {short(value)}: expected {expected}", param=f"{param}.{key}")
    return Function(str(name), parameters or {}, bool(strict))


def _written(tool: dict[str, Any]) -> dict[str, Any]:
    """A tool as templates know it: type and function, without what is null."""
    function = {name: value for name, value in tool["function"].items() if value is not None}
    return {"type": "function", "function": function}


def _choice(choice: Any, functions: Mapping[str, Function]) -> tuple[Mode, list[str]]:
    """Whether a tool must be called, and which ones may be."""
    everything = list(functions)
    if choice is None or choice == "auto":
        return "auto", everything
    if choice in ("none", "required"):
        return choice, everything
    kind = choice.get("type") if isinstance(choice, dict) else None
    if kind == "function" and isinstance(choice.get("function"), dict):
        return "required", [_named("tool_choice", choice, functions)]
    allowed = choice.get("allowed_tools") if kind == "allowed_tools" else None
    if not isinstance(allowed, dict) or not isinstance(allowed.get("tools"), list) or not allowed["tools"]:
        raise ApiError(400, f"tool_choice = {short(choice)}: expected {_CHOICES}, or {_ALLOWED}", param="tool_choice")
    param, mode = "tool_choice.allowed_tools", allowed.get("mode")
    if mode not in ("auto", "required"):
        raise ApiError(400, f'{param}.mode = {short(mode)}: expected "auto" or "required"', param=f"{param}.mode")
    names = [_named(f"{param}.tools[{index}]", tool, functions) for index, tool in enumerate(allowed["tools"])]
    return mode, list(dict.fromkeys(names))


def _named(param: str, tool: Any, functions: Mapping[str, Function]) -> str:
    function = tool.get("function") if isinstance(tool, dict) else None
    name = function.get("name") if isinstance(function, dict) else None
    if not isinstance(name, str) or name not in functions:
        known = ", ".join(list(functions)[:20]) or "there are none"
        param = f"{param}.function.name"
        raise ApiError(400, f"{param} = {short(name)}: expected one of tools: {known}", param=param)
    return name
