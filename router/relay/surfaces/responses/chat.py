"""The request to chat completions that stands for one to /v1/responses."""

from collections.abc import Sequence
from typing import Any

import msgspec

from .asked import Asked, Format
from .conversation import messages
from .items import Item
from .tools import chat_tools


def chat_body(asked: Asked, items: Sequence[Item]) -> bytes:
    """The body of the chat request."""
    return msgspec.json.encode(chat_fields(asked, items))


def chat_fields(asked: Asked, items: Sequence[Item]) -> dict[str, Any]:
    """Its fields.

    Args:
        asked: what the client asks for.
        items: the whole conversation, `asked.items` included.
    """
    found: dict[str, Any] = {**asked.others}
    for name, value in _plain(asked).items():
        if value is not None:
            found[name] = value
    found["messages"] = messages(asked.instructions, items)
    tools = chat_tools(asked.tools or [], asked.tool_choice)
    found.update(tools)
    if tools and asked.parallel_tool_calls is not None:
        found["parallel_tool_calls"] = asked.parallel_tool_calls
    if asked.wants_logprobs:
        found["logprobs"] = True
        if asked.top_logprobs:
            found["top_logprobs"] = asked.top_logprobs
    if asked.stream:
        found["stream"] = True
        found["stream_options"] = {"include_usage": True}
    return found


def _plain(asked: Asked) -> dict[str, Any]:
    text, reasoning = asked.text, asked.reasoning
    return {
        "model": asked.model,
        "max_completion_tokens": asked.max_output_tokens,
        "temperature": asked.temperature,
        "top_p": asked.top_p,
        "response_format": _response_format(text.format if text else None),
        "reasoning_effort": reasoning.effort if reasoning else None,
        "user": asked.user or asked.prompt_cache_key,
    }


def _response_format(format: Format | None) -> dict[str, Any] | None:
    if format is None or format.type == "text":
        return None
    if format.type == "json_object":
        return {"type": "json_object"}
    schema: dict[str, Any] = {"name": format.name, "schema": format.schema}
    if format.description is not None:
        schema["description"] = format.description
    if format.strict is not None:
        schema["strict"] = format.strict
    return {"type": "json_schema", "json_schema": schema}
