"""The object of a response, as clients see it."""

from typing import Any

from .asked import Asked
from .tools import ToolChoice, shown_tool

_REASONS = {"length": "max_output_tokens", "content_filter": "content_filter"}


def begun(asked: Asked, id: str, created_at: float) -> dict[str, Any]:
    """A response without output yet."""
    text, reasoning = asked.text, asked.reasoning
    return {
        "id": id,
        "object": "response",
        "created_at": int(created_at),
        "status": "in_progress",
        "background": False,
        "completed_at": None,
        "error": None,
        "incomplete_details": None,
        "instructions": asked.instructions,
        "max_output_tokens": asked.max_output_tokens,
        "max_tool_calls": asked.max_tool_calls,
        "metadata": asked.metadata or {},
        "model": asked.model or "",
        "output": [],
        "parallel_tool_calls": asked.parallel_tool_calls is not False,
        "previous_response_id": asked.previous_response_id,
        "prompt_cache_key": asked.prompt_cache_key,
        "reasoning": {"effort": reasoning.effort if reasoning else None, "summary": None},
        "safety_identifier": asked.safety_identifier,
        "service_tier": "default",
        "store": asked.keeps,
        "temperature": asked.temperature,
        "text": {"format": (text.format if text else None) or {"type": "text"}},
        "tool_choice": _choice(asked.tool_choice),
        "tools": [shown_tool(tool) for tool in asked.tools or []],
        "top_logprobs": asked.top_logprobs or 0,
        "top_p": asked.top_p,
        "truncation": "disabled",
        "usage": None,
        "user": asked.user,
    }


def is_complete(finish: str | None) -> bool:
    """Whether an answer that has ended for this reason is whole."""
    return finish not in _REASONS


def ended(
    response: dict[str, Any], output: list[dict[str, Any]], finish: str | None, usage: dict[str, Any] | None, now: float
) -> dict[str, Any]:
    """The response with all its output. `finish`: why it has ended, as chat completions tell it."""
    complete = is_complete(finish)
    return {
        **response,
        "status": "completed" if complete else "incomplete",
        "completed_at": int(now) if complete else None,
        "incomplete_details": None if complete else {"reason": _REASONS[finish or ""]},
        "output": output,
        "usage": usage,
    }


def failed(response: dict[str, Any], output: list[dict[str, Any]], message: str) -> dict[str, Any]:
    """The response where its stream has broken off."""
    return {
        **response,
        "status": "failed",
        "error": {"code": "server_error", "message": message},
        "output": output,
    }


def _choice(choice: str | ToolChoice | None) -> Any:
    if not isinstance(choice, ToolChoice):
        return choice or "auto"
    if choice.type == "function":
        return {"type": "function", "name": choice.name}
    tools = [{"type": allowed.type, "name": allowed.name} for allowed in choice.tools or []]
    return {"type": choice.type, "mode": choice.mode, "tools": tools}
