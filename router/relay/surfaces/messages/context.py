"""Errors of engines about the context length, in the words by which Anthropic's clients recognize them.

Claude Code makes its conversation shorter after the one, and asks for fewer tokens after the other.
"""

import re
from collections.abc import Sequence
from typing import Any

_LIMIT = (
    re.compile(r"maximum context length (?:is|of) (\d+) tokens"),
    re.compile(r"model's context length \((\d+) tokens\)"),  # SGLang
)
_INPUT = (
    re.compile(r"(\d+) prompt tokens \+ max_tokens"),  # the native engine
    re.compile(r"prompt contains (?:at least )?(\d+) (?:input )?tokens"),  # vLLM
    re.compile(r"(?:request has|messages resulted in) (\d+) (?:input )?tokens"),  # older ones
    re.compile(r"(\d+) tokens from the input messages"),  # SGLang
    re.compile(r"The input \((\d+) tokens\)"),  # SGLang
)
_OUTPUT = (
    re.compile(r"prompt tokens \+ max_tokens (\d+)"),
    re.compile(r"requested (\d+) output tokens"),
    re.compile(r"is too large: (\d+)"),
    re.compile(r"(\d+) tokens for the completion"),
)
_CODE = "context_length_exceeded"


def anthropic_words(answer: dict[str, Any]) -> dict[str, Any]:
    """An error answer of OpenAI's shape, in Anthropic's words where it is about the context length."""
    error = answer.get("error")
    holder = error if isinstance(error, dict) else answer  # SGLang writes the fields of an error at the top
    message = holder.get("message")
    if not isinstance(message, str):
        return answer
    worded = {**holder, "message": _in_words(message, holder.get("code"))}
    return {**answer, "error": worded} if isinstance(error, dict) else {"error": worded}


def _in_words(message: str, code: Any) -> str:
    limit, tokens, output = (_first(patterns, message) for patterns in (_LIMIT, _INPUT, _OUTPUT))
    if limit is None or tokens is None:
        return f"prompt is too long: {message}" if code == _CODE else message
    if tokens >= limit:
        return f"prompt is too long: {tokens} tokens > {limit} maximum"
    if output is None:
        return message
    return f"input length and `max_tokens` exceed context limit: {tokens} + {output} > {limit}; ask for fewer tokens"


def _first(patterns: Sequence[re.Pattern[str]], message: str) -> int | None:
    found = next((match for pattern in patterns if (match := pattern.search(message))), None)
    return None if found is None else int(found[1])
