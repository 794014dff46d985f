"""Tools and the choice among them, for chat completions."""

from typing import Any

from msgspec import Raw

from ..translation import TranslationError
from .asked import Asked, Tool, ToolChoice

_CHOICES = {"auto": "auto", "any": "required", "none": "none"}
_NO_PARAMETERS = Raw(b'{"type":"object","properties":{}}')


def tool_fields(asked: Asked) -> dict[str, Any]:
    """The fields of a chat request for the tools of a request. Raises TranslationError."""
    if not asked.tools:
        return {}
    fields: dict[str, Any] = {"tools": [_function(tool, index) for index, tool in enumerate(asked.tools)]}
    choice = asked.tool_choice
    if choice is not None:
        if choice.type != "auto":
            fields["tool_choice"] = _choice(choice)
        if choice.disable_parallel_tool_use:
            fields["parallel_tool_calls"] = False
    return fields


def _function(tool: Tool, index: int) -> dict[str, Any]:
    if tool.type == "function":
        expected = "expected no type and no function: name, description and input_schema stand in the tool itself"
        raise TranslationError(f"tools.{index}: this is a tool of OpenAI's API; {expected}", "tools")
    if tool.type not in (None, "custom"):
        raise TranslationError(
            f"tools.{index}.type: {tool.type[:60]!r}: tools that Anthropic defines are not available here; "
            "expected custom, with an input_schema",
            "tools",
        )
    if not tool.name:
        raise TranslationError(f"tools.{index}.name: missing; expected the tool's name", "tools")
    function: dict[str, Any] = {"name": tool.name, "parameters": tool.input_schema or _NO_PARAMETERS}
    if tool.description:
        function["description"] = tool.description
    if tool.strict:
        function["strict"] = True
    return {"type": "function", "function": function}


def _choice(choice: ToolChoice) -> Any:
    if choice.type == "tool" and choice.name:
        return {"type": "function", "function": {"name": choice.name}}
    if choice.type not in _CHOICES:
        expected = f"expected one of {', '.join(_CHOICES)}, or tool with its name"
        raise TranslationError(f"tool_choice.type: {choice.type[:40]!r}: {expected}", "tool_choice")
    return _CHOICES[choice.type]
