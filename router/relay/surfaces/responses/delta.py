"""What chat completions say, in one piece or in events, put into an `Output`. Whatever an engine sends, none raises."""

from collections.abc import Mapping
from typing import Any

from .output import Event, Output


class Delta:
    """A message of chat completions, or what an event adds to it.

    Args:
        choice: of an answer or an event.
        wants_logprobs: whether the probabilities of tokens are to be told.
    """

    def __init__(self, choice: Mapping[str, Any], wants_logprobs: bool) -> None:
        said = choice.get("delta") if isinstance(choice.get("delta"), Mapping) else choice.get("message")
        self._said: Mapping[str, Any] = said if isinstance(said, Mapping) else {}
        self._logprobs = _logprobs(choice.get("logprobs")) if wants_logprobs else []
        finish = choice.get("finish_reason")
        self.finish = finish if isinstance(finish, str) else None

    def put_into(self, output: Output) -> list[Event]:
        """Add this to an output; the events that tell of it."""
        said, events = self._said, []
        reasoning = said.get("reasoning_content") or said.get("reasoning")
        if isinstance(reasoning, str) and reasoning:
            events += output.reasoning(reasoning)
        content = said.get("content")
        text = content if isinstance(content, str) else ""
        if text or (self._logprobs and not events):
            events += output.text(text, self._logprobs)
        calls = said.get("tool_calls")
        for place, call in enumerate(calls if isinstance(calls, list) else []):
            if isinstance(call, Mapping):
                events += _put_call(output, place, call)
        return events


def _put_call(output: Output, place: int, call: Mapping[str, Any]) -> list[Event]:
    function = call.get("function")
    function = function if isinstance(function, Mapping) else {}
    index = call.get("index")
    return output.call(
        index if isinstance(index, int) else place,
        _text(call.get("id")),
        _text(function.get("name")),
        _text(function.get("arguments")) or "",
    )


def usage(found: Any) -> dict[str, Any] | None:
    """Token counts as the responses API tells them; None where there are none."""
    if not isinstance(found, Mapping):
        return None
    prompt, completion = _count(found, "prompt_tokens"), _count(found, "completion_tokens")
    return {
        "input_tokens": prompt,
        "input_tokens_details": {
            "cached_tokens": _count(found.get("prompt_tokens_details"), "cached_tokens"),
            "cache_write_tokens": 0,
        },
        "output_tokens": completion,
        "output_tokens_details": {
            "reasoning_tokens": _count(found.get("completion_tokens_details"), "reasoning_tokens"),
        },
        "total_tokens": prompt + completion,
    }


def _count(found: Any, name: str) -> int:
    value = found.get(name) if isinstance(found, Mapping) else None
    return value if isinstance(value, int) else 0


def _logprobs(found: Any) -> list[dict[str, Any]]:
    content = found.get("content") if isinstance(found, Mapping) else None
    return [
        {**_logprob(one), "top_logprobs": [_logprob(other) for other in _mappings(one.get("top_logprobs"))]}
        for one in _mappings(content)
    ]


def _mappings(found: Any) -> list[Mapping[str, Any]]:
    return [one for one in found if isinstance(one, Mapping)] if isinstance(found, list) else []


def _logprob(found: Mapping[str, Any]) -> dict[str, Any]:
    token = _text(found.get("token")) or ""
    given = found.get("bytes")
    return {
        "token": token,
        "bytes": given if isinstance(given, list) else list(token.encode()),
        "logprob": found.get("logprob"),
    }


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None
