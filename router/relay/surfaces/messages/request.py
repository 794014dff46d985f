"""The chat request that stands for a request of Anthropic's API."""

from typing import Any

import msgspec

from ...stream.envelope import is_given
from ..translation import TranslationError
from .asked import Asked, Format
from .content import Chat, chat_messages, system_message
from .names import PASSED_ON, RENAMED, UNKNOWN
from .tools import tool_fields

# By field: its name in chat completions.
_SAME = {
    "model": "model",
    "max_tokens": "max_tokens",
    "temperature": "temperature",
    "top_p": "top_p",
    "top_k": "top_k",
    "stop_sequences": "stop",
}
_THINKING = {"enabled": True, "adaptive": True, "between_tools": True, "disabled": False}
_EFFORTS = {"low": "low", "medium": "medium", "high": "high", "xhigh": "high", "max": "high"}


def chat_request(asked: Asked) -> bytes:
    """The body for /v1/chat/completions. Raises TranslationError."""
    return msgspec.json.encode(chat_fields(asked))


def chat_fields(asked: Asked) -> dict[str, Any]:
    """Its fields. Raises TranslationError."""
    _refuse(asked)
    messages = [*system_message(asked.system), *chat_messages(asked.messages)]
    fields: dict[str, Any] = {
        name: value for field, name in _SAME.items() if (value := getattr(asked, field)) not in (None, [])
    }
    fields |= {name: value for name in PASSED_ON if (value := getattr(asked, name))}
    fields["messages"] = messages
    fields |= tool_fields(asked) | _thinking(asked) | _format(asked) | _prefill(messages)
    if asked.metadata is not None and asked.metadata.user_id:
        fields["user"] = asked.metadata.user_id
    if asked.stream:
        fields |= {"stream": True, "stream_options": {"include_usage": True}}
    return fields


def _refuse(asked: Asked) -> None:
    """Raise TranslationError for what would change the answer and cannot be done."""
    if not asked.messages:
        raise TranslationError("messages: expected at least one message", "messages")
    for name, here in RENAMED.items():
        if getattr(asked, name) and bytes(getattr(asked, name)) != b"null":
            raise TranslationError(f"{name}: not a field of /v1/messages; use {here}", name, code=UNKNOWN)
    if is_given(asked.mcp_servers):
        raise TranslationError("mcp_servers: the router calls no tools itself; leave it out", "mcp_servers")
    if is_given(asked.container):
        raise TranslationError("container: the router runs no code itself; leave it out", "container")


def _thinking(asked: Asked) -> dict[str, Any]:
    """Variables of the chat template; models know them by one of these names."""
    kwargs: dict[str, Any] = {}
    if asked.thinking is not None:
        is_on = _THINKING.get(asked.thinking.type)
        if is_on is None:
            given = asked.thinking.type[:40]
            raise TranslationError(f"thinking.type: {given!r}: expected one of {', '.join(_THINKING)}", "thinking")
        kwargs |= {"enable_thinking": is_on, "thinking": is_on}
    effort = asked.output_config.effort if asked.output_config else None
    if effort is not None:
        if effort not in _EFFORTS:
            expected = f"expected one of {', '.join(_EFFORTS)}"
            raise TranslationError(f"output_config.effort: {effort[:40]!r}: {expected}", "output_config")
        kwargs["reasoning_effort"] = _EFFORTS[effort]
    return {"chat_template_kwargs": kwargs} if kwargs else {}


def _format(asked: Asked) -> dict[str, Any]:
    wanted: Format | None = (asked.output_config.format if asked.output_config else None) or asked.output_format
    if wanted is None:
        return {}
    if wanted.type != "json_schema" or not wanted.schema:
        raise TranslationError(f"output_config.format: {wanted.type[:40]!r}: expected json_schema with a schema")
    schema = {"name": "answer", "schema": wanted.schema, "strict": True}
    return {"response_format": {"type": "json_schema", "json_schema": schema}}


def _prefill(messages: list[Chat]) -> dict[str, Any]:
    """A conversation that ends with the model's own words goes on with these."""
    last = messages[-1] if messages else {}
    if last.get("role") != "assistant" or "tool_calls" in last:
        return {}
    return {"continue_final_message": True, "add_generation_prompt": False}
