"""Tools for chat templates that know none: in a system message, in the format of Hermes.

<tools>              one JSON object for each tool
<tool_call>          {"name": ..., "arguments": {...}}, by the model
<tool_response>      what the tool has answered
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

_BEFORE = """\
You can call functions. Each line has one, with its name, its description and the schema of its parameters:
<tools>
"""
_AFTER = """
</tools>
To call a function, write a JSON object with its name and its arguments, between these two tags:
<tool_call>
{"name": "NAME", "arguments": {"PARAMETER": VALUE}}
</tool_call>
The results will be given to you as <tool_response>...</tool_response>. If no function helps, answer in words."""


def with_tools(
    messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]], *, in_system: bool = True
) -> list[Mapping[str, Any]]:
    """The messages, with the tools at the end of the first system message, which is added if there is none.

    `in_system`: False for templates that refuse system messages; then the tools stand before the first message's text.
    """
    lines = "\n".join(json.dumps(tool, ensure_ascii=False) for tool in tools)
    text = _BEFORE + lines + _AFTER
    first = messages[0]
    if not in_system:
        return [{**first, "content": f"{text}\n\n{first['content']}"}, *messages[1:]]
    if first["role"] not in ("system", "developer"):
        return [{"role": "system", "content": text}, *messages]
    content = "\n\n".join(part for part in (first["content"], text) if part)
    return [{**first, "content": content}, *messages[1:]]


def with_calls_as_text(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The messages, with calls in the content of the assistant and results in messages of the user."""
    written: list[dict[str, Any]] = []
    contents: list[list[str]] = []  # of each: put together once, as there may be thousands
    for message in messages:
        turn = _as_text(message)
        if message["role"] == "tool" and written and written[-1]["role"] == "user":
            contents[-1].append(turn["content"])  # templates want the roles to take turns
        else:
            written.append(turn)
            contents.append([turn["content"]])
    return [{**turn, "content": "\n".join(parts)} for turn, parts in zip(written, contents, strict=True)]


def _as_text(message: Mapping[str, Any]) -> dict[str, Any]:
    if message["role"] == "tool":
        return {"role": "user", "content": f"<tool_response>\n{message['content']}\n</tool_response>"}
    if not message.get("tool_calls"):
        return dict(message)
    calls = [_written(call["function"]) for call in message["tool_calls"]]
    rest = {name: value for name, value in message.items() if name != "tool_calls"}
    return {**rest, "content": "\n".join(part for part in (message["content"], *calls) if part)}


def _written(function: Mapping[str, Any]) -> str:
    arguments = function["arguments"]
    text = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
    return f'<tool_call>\n{{"name": {json.dumps(function["name"])}, "arguments": {text}}}\n</tool_call>'
