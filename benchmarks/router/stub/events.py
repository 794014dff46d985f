"""The bodies of answers in OpenAI's shapes."""

import json
from typing import Any

from .answers import Answer, tokens_of


class Shape:
    """One request's answer as JSON: of chat or of completions, whole or as events."""

    def __init__(self, request: dict[str, Any], number: int, model: str) -> None:
        self._chat = "messages" in request
        self._wants_usage = bool((request.get("stream_options") or {}).get("include_usage"))
        prefix, kind = ("chatcmpl", "chat.completion") if self._chat else ("cmpl", "text_completion")
        more = ".chunk" if self._chat and request.get("stream") else ""
        self._base = {"id": f"{prefix}-{number:x}", "object": kind + more, "created": 1_700_000_000, "model": model}
        head, _, tail = json.dumps(self._base | {"choices": [self._choice("\0", None)]}).partition('"\\u0000"')
        self._head, self._tail = f"data: {head}", f"{tail}\n\n"

    def first(self) -> bytes:
        """The event before the first token, which gives the role; nothing for completions."""
        return self._event([self._delta({"role": "assistant", "content": ""})]) if self._chat else b""

    def token(self, text: str) -> bytes:
        """The event of one token."""
        return f"{self._head}{json.dumps(text)}{self._tail}".encode()

    def last(self, finish_reason: str, usage: dict[str, Any]) -> bytes:
        """The events after the last token."""
        choice = self._delta({}, finish_reason) if self._chat else self._choice("", finish_reason)
        end = self._event([choice])
        if self._wants_usage:
            end += self._event([], usage=usage)
        return end + b"data: [DONE]\n\n"

    def whole(self, answer: Answer, usage: dict[str, Any]) -> bytes:
        """The answer in one piece."""
        choice: dict[str, Any] = {"index": 0, "logprobs": None, "finish_reason": answer.finish_reason}
        if self._chat:
            choice["message"] = {"role": "assistant", "content": answer.text}
        else:
            choice["text"] = answer.text
        return json.dumps(self._base | {"choices": [choice], "usage": usage}).encode()

    def _choice(self, text: str, finish_reason: str | None) -> dict[str, Any]:
        if self._chat:
            return self._delta({"content": text}, finish_reason)
        return {"index": 0, "text": text, "logprobs": None, "finish_reason": finish_reason}

    def _delta(self, delta: dict[str, Any], finish_reason: str | None = None) -> dict[str, Any]:
        return {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}

    def _event(self, choices: list[dict[str, Any]], **more: Any) -> bytes:
        return f"data: {json.dumps(self._base | {'choices': choices} | more)}\n\n".encode()


def usage_of(prompt: str, generated: int, cached: int = 0) -> dict[str, Any]:
    """The usage of one request."""
    tokens = tokens_of(prompt)
    counts = {"prompt_tokens": tokens, "completion_tokens": generated, "total_tokens": tokens + generated}
    return counts | {"prompt_tokens_details": {"cached_tokens": cached}}
