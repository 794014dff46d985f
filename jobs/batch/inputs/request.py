"""What a record of a batch's input asks for, whatever format the file has.

Three forms, which one file may mix, here as JSON:

    {"prompt": "...", ...}           to /v1/completions
    {"messages": [...], ...}         to /v1/chat/completions
    {"custom_id": "...", "method": "POST", "url": "/v1/...", "body": {...}}     OpenAI's own batch lines

In the first two, "id" (a string or an integer, may be left out) names the result, "turns" is a list of further user's
messages, each sent after the answer before it, and every further key is a parameter of the request: max_tokens,
temperature, stop, seed, n, whatever the engine understands. OpenAI's lines get whole answers back.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import msgspec

Id = str | int

COMPLETIONS, CHAT = "/v1/completions", "/v1/chat/completions"
GENERATES = (COMPLETIONS, CHAT)  # paths whose answers have choices
_canonical = msgspec.json.Encoder(order="deterministic").encode


@dataclass(frozen=True, slots=True)
class BatchRequest:
    """A row that can be sent to the endpoint."""

    shard: int
    index: int  # within the shard
    line: int  # in its file, from 1, for messages
    key: str  # what it asks for: 128 bits in hexadecimal, without model and defaults of the batch
    path: str  # from /v1/ on
    body: dict[str, Any]  # what the row says, without model and defaults of the batch
    whole_answer: bool = False  # OpenAI's form: the answer is kept as it is
    id: Id | None = None  # `custom_id` of OpenAI's form, `id` of ours
    turns: tuple[str, ...] = ()  # further user's messages, each sent after the answer before it
    prompt_bytes: int = 0  # about as long as what must be computed before the answer

    def with_defaults(self, model: str, defaults: Mapping[str, Any]) -> dict[str, Any]:
        """The body to send: what the row says, and where it says nothing, `model` and `defaults`."""
        generates = self.path in GENERATES
        added = {name: value for name, value in defaults.items() if generates and not _says(self.body, name)}
        return {"model": model, **added, **self.body}


class BadRowError(Exception):
    """A row asks for nothing that can be done. The message says why."""


def key_of(path: str, body: Mapping[str, Any], turns: tuple[str, ...], id: Id | None) -> str:
    """128 bits in hexadecimal, the same for requests that ask for the same.

    Raises ValueError, TypeError, OverflowError, RecursionError for values that no JSON can hold.
    """
    return blake2b(_canonical((path, body, turns, id)), digest_size=16).hexdigest()


def _says(body: dict[str, Any], name: str) -> bool:
    """`max_completion_tokens` is the newer name of `max_tokens`; engines refuse or mix up both at once."""
    return name in body or (name == "max_tokens" and "max_completion_tokens" in body)
