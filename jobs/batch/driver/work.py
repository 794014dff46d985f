"""One row that is to be sent, and in which order rows are."""

from collections.abc import Iterable, Sized
from dataclasses import dataclass
from typing import Any

import msgspec

from ..inputs.plan import Shard
from ..inputs.request import BatchRequest
from ..parameters import Parameters

_USUAL_TOKENS = 512  # that an answer has where the row does not bound it
_BYTES_PER_TOKEN = 4
_DECODING = 50  # times as long as prefilling takes one token
_LONGEST_KEY = 16_384  # characters of a prompt by which rows are ordered


@dataclass(slots=True)
class Work:
    """A row that is to be sent."""

    shard: Shard
    request: BatchRequest
    body: bytes  # as it is sent first
    has_model: bool  # the body names one
    prompt: str  # the beginning of it, as far as it is text
    cost: int  # about how long it takes, in a unit of its own

    @property
    def size(self) -> int:
        """Bytes of memory, about."""
        return 3 * len(self.body) + len(self.prompt) + 1024  # also as the request's values


class WorkMaker:
    """Makes of requests what is sent, with a batch's parameters where a row does not say."""

    def __init__(self, parameters: Parameters) -> None:
        self._model = parameters.model
        self._defaults: dict[str, Any] = dict(parameters.sampling)
        if parameters.samples > 1:
            self._defaults["n"] = parameters.samples

    def make(self, shard: Shard, request: BatchRequest) -> Work:
        """A row as it is sent. Raises ValueError, OverflowError, RecursionError for values that no JSON can hold."""
        body = request.with_defaults(self._model or "", self._defaults)
        if not body["model"]:
            del body["model"]
        return Work(
            shard=shard,
            request=request,
            body=msgspec.json.encode(body),
            has_model="model" in body,
            prompt=prompt_of(body),
            cost=cost_of(
                request.prompt_bytes, body.get("max_completion_tokens", body.get("max_tokens")), request.turns
            ),
        )


def prompt_of(body: dict[str, Any]) -> str:
    """The beginning of a request's text, by which rows are ordered."""
    prompt = body.get("prompt")
    if isinstance(prompt, str):
        return prompt[:_LONGEST_KEY]
    messages = body.get("messages")
    if not isinstance(messages, list):
        return ""
    if len(messages) == 1:
        return _text(messages[0])[:_LONGEST_KEY]
    return "\n".join(_text(message) for message in messages)[:_LONGEST_KEY]


def cost_of(prompt_bytes: int, most_tokens: object, turns: Sized = ()) -> int:
    """About how long a row takes: its prompt, and the longest answers that it allows, one and one for each turn."""
    tokens = most_tokens if isinstance(most_tokens, int) and most_tokens > 0 else _USUAL_TOKENS
    return prompt_bytes // _BYTES_PER_TOKEN + _DECODING * tokens * (1 + len(turns))


def arrange(rows: Iterable[Work], last: bool) -> list[Work]:
    """The order in which rows are sent: those whose prompts begin alike are neighbours, so that caches have them.

    `last`: no rows follow. Then those that take longest go first (by powers of two), so that nobody waits for one that
    began late.
    """
    if last:
        return sorted(rows, key=lambda work: (-work.cost.bit_length(), work.prompt))
    return sorted(rows, key=lambda work: work.prompt)


def _text(message: object) -> str:
    content = message.get("content") if isinstance(message, dict) else None
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    return "\n".join(part["text"] for part in parts if isinstance(part, dict) and isinstance(part.get("text"), str))
