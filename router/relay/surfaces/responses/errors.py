"""Errors about fields of chat completions, named by the fields of the responses API."""

import re
from typing import Any

UNKNOWN = "unknown_parameter"  # the code of an error about a field of chat completions, which is named as it is
_PARAMS = (
    (re.compile(r"messages\b.*", re.DOTALL), "input"),
    (re.compile(r"max_(?:completion_)?tokens"), "max_output_tokens"),
    (re.compile(r"response_format\.json_schema\b"), "text.format"),
    (re.compile(r"response_format\b"), "text.format"),
    (re.compile(r"reasoning_effort"), "reasoning.effort"),
    (re.compile(r"logprobs"), "include"),
    (re.compile(r"(tools\[\d+\])\.function\b"), r"\1"),
    (re.compile(r"tool_choice\.function\b"), "tool_choice"),
)
# The same in a message. `messages` is a word, too: only with a place behind it, or in quotes, is it the field.
_WORDS = (
    (re.compile(r"\bmessages(?:\[\d+\][\w.\[\]]*|(?=\s*[:=]))|(?<=[\"'`])messages(?=[\"'`])"), "input"),
    (re.compile(r"\bmax_(?:completion_)?tokens\b"), "max_output_tokens"),
    (re.compile(r"\bresponse_format(?:\.json_schema)?\b"), "text.format"),
    (re.compile(r"\breasoning_effort\b"), "reasoning.effort"),
    (re.compile(r"\b(tools\[\d+\])\.function\b"), r"\1"),
)


def renamed(error: dict[str, Any]) -> dict[str, Any]:
    """An error of OpenAI's shape, what is in its "error", with the names of the responses API."""
    found = dict(error)
    if isinstance(param := found.get("param"), str):
        found["param"] = _param(param)
    if isinstance(message := found.get("message"), str):
        for pattern, name in _WORDS:
            message = pattern.sub(name, message)
        found["message"] = message
    return found


def renamed_answer(answer: dict[str, Any]) -> dict[str, Any]:
    """An error answer with the names of the responses API, unless it is about the name of a field itself."""
    error = answer.get("error")
    if not isinstance(error, dict) or error.get("code") == UNKNOWN:
        return answer
    return {**answer, "error": renamed(error)}


def _param(param: str) -> str:
    for pattern, name in _PARAMS:
        if pattern.match(param):
            return pattern.sub(name, param, count=1)
    return param
