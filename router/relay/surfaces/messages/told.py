"""What chat completions tell, and what that is in Anthropic's API: stop reasons, token counts."""

from collections.abc import Collection
from typing import Any

import msgspec

from ...stream.usage import tokens_from

UNSIGNED = "unsigned"  # the signature of thinking: clients send back only what has one


class Function(msgspec.Struct):
    """Of a tool call, or a part of it."""

    name: str | None = None
    arguments: Any = None


class ToolCall(msgspec.Struct):
    """A tool call, or a part of it."""

    index: int | None = None
    id: str | None = None
    function: Function | None = None


class Said(msgspec.Struct):
    """A message, or the next part of it."""

    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    refusal: str | None = None
    tool_calls: list[ToolCall] | None = None

    @property
    def thinking(self) -> str:
        """The reasoning; engines have two names for it."""
        return self.reasoning_content or self.reasoning or ""

    @property
    def text(self) -> str:
        """What the user is to read."""
        return self.content or self.refusal or ""


class Choice(msgspec.Struct):
    """One answer, or the next part of it."""

    index: int = 0
    message: Said | None = None
    delta: Said | None = None
    finish_reason: str | None = None
    stop_reason: Any = None  # of vLLM and the native engine: the stop string or token that has ended the answer
    matched_stop: Any = None  # the same, of SGLang


class Told(msgspec.Struct):
    """A whole answer, or an event."""

    choices: list[Choice]
    usage: Any = None
    model: str | None = None


class Ending(msgspec.Struct, frozen=True):
    """Why an answer has ended."""

    reason: str
    sequence: str | None = None


_REASONS = {
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "function_call": "tool_use",
    "content_filter": "refusal",
}


def ending(choice: Choice, stops: Collection[str], *, calls: bool, refuses: bool) -> Ending:
    """Why an answer has ended.

    Args:
        choice: the last of it.
        stops: the request's stop sequences.
        calls: whether it calls tools, which engines do not always say at its end.
        refuses: whether it is a refusal.
    """
    if refuses:
        return Ending("refusal")
    matched = choice.stop_reason if isinstance(choice.stop_reason, str) else choice.matched_stop
    if isinstance(matched, str) and matched in stops:
        return Ending("stop_sequence", matched)
    reason = _REASONS.get(choice.finish_reason or "", "end_turn")
    return Ending("tool_use" if calls and reason == "end_turn" else reason)


def usage(told: Any) -> dict[str, int]:
    """Token counts. Those of the prompt that were cached do not count as input there."""
    tokens = tokens_from(told)
    if tokens is None:
        return {"input_tokens": 0, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0, "output_tokens": 0}
    cached = min(tokens.cached or 0, tokens.prompt)
    return {
        "input_tokens": tokens.prompt - cached,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": cached,
        "output_tokens": tokens.generated,
    }
