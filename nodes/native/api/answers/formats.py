"""What the JSON of all answers has in common, whole or in pieces: the fields around the choices, and token counts."""

import math
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec

from ...engine.request import TokenLogprobs
from .generation import Choice, Delta

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Origin:
    """The names of the model and this version, and whether the stream ends with token counts."""

    model: str
    fingerprint: str
    include_usage: bool
    tokens_as_ids: bool = False  # in logprobs


class EndpointFormat(Protocol):
    """How an endpoint writes generated text as JSON, whole or in chunks."""

    def chunk(self, delta: Delta, usage: Json | None = None, ids: Sequence[int] | None = None) -> Json:
        """The SSE event of one delta, with the token counts up to then if they are to be in every chunk.

        `ids`: the tokens since the event before, if they are to be told.
        """

    def is_long(self, index: int) -> bool:
        """Whether writing the next chunk of a choice takes so long that others must not wait for it."""

    def skip(self, index: int, tokens: Sequence[int]) -> None:
        """Begin a choice after its first tokens, which have been told by another server."""

    def whole(self, deltas: Sequence[Delta], usage: Json) -> Json:
        """The answer that is not streamed, from all its deltas."""

    def with_prompts(self, answer: Json, logprobs: Sequence[msgspec.Raw]) -> Json:
        """A whole answer with the `logprobs` of each prompt as `prompt_logprobs`, where vLLM has them."""

    def with_prompt_ids(self, answer: Json, prompts: Sequence[Sequence[int]]) -> Json:
        """An answer or event with the tokens of each prompt as `prompt_token_ids`, where vLLM has them."""

    def usage_chunk(self, usage: Json) -> Json:
        """The SSE event after the last delta."""


class Envelope:
    """The fields around the choices, the same in all chunks of one response."""

    def __init__(self, kind: str, chunk_kind: str, id: str, origin: Origin) -> None:
        self._kind, self._chunk_kind = kind, chunk_kind  # OpenAI's `object`
        self._include_usage = origin.include_usage
        self._fields = {
            "id": f"{id}-{uuid.uuid4().hex}",
            "created": int(time.time()),
            "model": origin.model,
            "system_fingerprint": origin.fingerprint,
        }

    def whole(self, choices: Sequence[Json], usage: Json) -> Json:
        return {**self._fields, "object": self._kind, "choices": choices, "usage": usage}

    def chunk(self, choices: Sequence[Json], usage: Json | None = None) -> Json:
        """One event of a stream. If usage was asked for, all chunks have the field: null until the last."""
        body = {**self._fields, "object": self._chunk_kind, "choices": choices}
        return {**body, "usage": usage} if self._include_usage else body


def usage(choices: Sequence[Choice], per_prompt: int) -> Json:
    """Token counts of an answer; `per_prompt` choices in a row share one prompt, which counts once."""
    firsts = [choice.request for choice in choices[::per_prompt]]
    prompt = sum(request.prompt_length for request in firsts)
    completion = sum(choice.tokens for choice in choices)
    guessed, accepted = (sum(getattr(c.request, name) for c in choices) for name in ("guessed", "accepted"))
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": sum(request.cached or 0 for request in firsts)},
        # Of speculative decoding: tokens guessed and taken, or not.
        "completion_tokens_details": {
            "reasoning_tokens": sum(choice.reasoning_tokens for choice in choices),
            "accepted_prediction_tokens": accepted,
            "rejected_prediction_tokens": guessed - accepted,
        },
    }


class UnsentIds:
    """Tokens of each choice that no event has told yet: not every token has text."""

    def __init__(self) -> None:
        self._ids: dict[int, list[int]] = {}

    def add(self, delta: Delta) -> None:
        """Keep the token of a delta."""
        token = delta.end_token if delta.token is None else delta.token
        if token is not None:
            self._ids.setdefault(delta.index, []).append(token)

    def take(self, index: int) -> list[int]:
        """The tokens of a choice since the last time."""
        return self._ids.pop(index, [])


def with_ids(choice: Json, ids: Sequence[int] | None) -> Json:
    """Last in the choice, so that a proxy can take them out without decoding the event."""
    return choice if ids is None else {**choice, "token_ids": ids}


def by_choice(deltas: Sequence[Delta]) -> list[list[Delta]]:
    """The deltas of each choice, the choices in order."""
    groups: dict[int, list[Delta]] = {}
    for delta in deltas:
        groups.setdefault(delta.index, []).append(delta)
    return [groups[index] for index in sorted(groups)]


def with_all_ids(answer: Json, deltas: Sequence[Delta]) -> Json:
    """A whole answer with the tokens of each choice, the end token included."""
    tokens = [[d.end_token if d.token is None else d.token for d in group] for group in by_choice(deltas)]
    pairs = zip(answer["choices"], tokens, strict=True)
    return {**answer, "choices": [with_ids(choice, [id for id in ids if id is not None]) for choice, ids in pairs]}


def entries(deltas: Sequence[Delta], *, ends: bool = False) -> list[tuple[int, TokenLogprobs]]:
    """The tokens that come with log-probabilities, and these. `ends`: end tokens too."""
    tokens = [d.end_token if ends and d.token is None else d.token for d in deltas]
    pairs = zip(tokens, (delta.logprobs for delta in deltas), strict=True)
    return [(token, logprobs) for token, logprobs in pairs if token is not None and logprobs is not None]


def ending(delta: Delta) -> Json:
    """Why a choice has ended, if this delta is its last one. `stop_reason` is vLLM's: the stop string that came."""
    end: Json = {"finish_reason": delta.finish}
    return {**end, "stop_reason": delta.stop_reason} if delta.finish else end


def encoded(answer: Json) -> Json:
    """A whole answer whose choices are JSON already, and no objects any more.

    Each is encoded by itself: other threads do not go on while one value is encoded.
    """
    choices = answer["choices"]
    for place, choice in enumerate(choices):
        choices[place] = msgspec.Raw(msgspec.json.encode(choice))
    return answer


def finite(logprob: float) -> float:
    """JSON has no infinity; this is what OpenAI gives for tokens out of reach."""
    return logprob if math.isfinite(logprob) else -9999.0
