"""Responses: OpenAI's JSON for completions and chat, whole or in pieces."""

import math
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from ..engine.request import TokenLogprobs
from ..tokenizer import Tokenizer
from .generation import Choice, Delta

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Origin:
    """The names of the model and this version, and whether the stream ends with token counts."""

    model: str
    fingerprint: str
    include_usage: bool


class EndpointFormat(Protocol):
    """How an endpoint writes generated text as JSON, whole or in chunks."""

    def chunk(self, delta: Delta, usage: Json | None = None, ids: Sequence[int] | None = None) -> Json:
        """The SSE event of one delta, with the token counts up to then if they are to be in every chunk.

        `ids`: the tokens since the event before, if they are to be told.
        """

    def skip(self, tokens: Sequence[int]) -> None:
        """Begin after the answer's first tokens, which have been told by another server."""

    def whole(self, deltas: Sequence[Delta], usage: Json) -> Json:
        """The answer that is not streamed, from all its deltas."""

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


class CompletionFormat:
    """/v1/completions. A chunk and the whole answer look alike."""

    def __init__(self, tokenizer: Tokenizer, origin: Origin) -> None:
        self._tokenizer = tokenizer
        self._envelope = Envelope("text_completion", "text_completion", "cmpl", origin)
        self._offsets: dict[int, int] = {}  # of the next token in each choice's text, in characters

    def chunk(self, delta: Delta, usage: Json | None = None, ids: Sequence[int] | None = None) -> Json:
        return self._envelope.chunk([_with_ids(self._choice([delta]), ids)], usage)

    def skip(self, tokens: Sequence[int]) -> None:
        self._offsets[0] = sum(len(self._token(token)) for token in tokens)

    def whole(self, deltas: Sequence[Delta], usage: Json) -> Json:
        return self._envelope.whole([self._choice(group) for group in _by_choice(deltas)], usage)

    def usage_chunk(self, usage: Json) -> Json:
        return self._envelope.chunk([], usage)

    def _choice(self, deltas: Sequence[Delta]) -> Json:
        text = "".join(delta.text for delta in deltas)
        finish, logprobs = deltas[-1].finish, self._logprobs(deltas)
        return {"index": deltas[0].index, "text": text, "logprobs": logprobs, "finish_reason": finish}

    def _logprobs(self, deltas: Sequence[Delta]) -> Json | None:
        entries = _entries(deltas)
        if not entries:
            return None
        index = deltas[0].index
        tokens = [self._token(token) for token, _ in entries]
        offsets = []
        for token in tokens:
            offsets.append(self._offsets.get(index, 0))
            self._offsets[index] = offsets[-1] + len(token)
        return {
            "tokens": tokens,
            "token_logprobs": [_finite(logprobs.chosen) for _, logprobs in entries],
            "top_logprobs": [self._top(*entry) for entry in entries] if any(one.top for _, one in entries) else None,
            "text_offset": offsets,
        }

    def _top(self, token: int, logprobs: TokenLogprobs) -> Json:
        """The best tokens, and the sampled one if it is none of them. Of tokens with the same text the better one."""
        found: Json = {}
        for id, value in logprobs.top:
            found.setdefault(self._token(id), _finite(value))
        found[self._token(token)] = _finite(logprobs.chosen)
        return found

    def _token(self, id: int) -> str:
        return self._tokenizer.token_bytes(id).decode(errors="replace")


class ChatFormat:
    """/v1/chat/completions."""

    def __init__(self, tokenizer: Tokenizer, origin: Origin) -> None:
        self._tokenizer = tokenizer
        self._envelope = Envelope("chat.completion", "chat.completion.chunk", "chatcmpl", origin)
        self._begun: set[int] = set()

    def skip(self, tokens: Sequence[int]) -> None:
        self._begun.add(0)

    def chunk(self, delta: Delta, usage: Json | None = None, ids: Sequence[int] | None = None) -> Json:
        said: Json = {"content": delta.text} if delta.text or delta.finish is None else {}
        if delta.index not in self._begun:
            self._begun.add(delta.index)
            said = {"role": "assistant", "content": delta.text}
        choice = {"index": delta.index, "delta": said, **self._ending([delta])}
        return self._envelope.chunk([_with_ids(choice, ids)], usage)

    def whole(self, deltas: Sequence[Delta], usage: Json) -> Json:
        choices = []
        for group in _by_choice(deltas):
            message = {"role": "assistant", "content": "".join(delta.text for delta in group), "refusal": None}
            choices.append({"index": group[0].index, "message": message, **self._ending(group)})
        return self._envelope.whole(choices, usage)

    def usage_chunk(self, usage: Json) -> Json:
        return self._envelope.chunk([], usage)

    def _ending(self, deltas: Sequence[Delta]) -> Json:
        content = [
            {**self._token(token, logprobs.chosen), "top_logprobs": [self._token(*pair) for pair in logprobs.top]}
            for token, logprobs in _entries(deltas)
        ]
        return {"logprobs": {"content": content} if content else None, "finish_reason": deltas[-1].finish}

    def _token(self, id: int, logprob: float) -> Json:
        raw = self._tokenizer.token_bytes(id)
        return {"token": raw.decode(errors="replace"), "logprob": _finite(logprob), "bytes": list(raw)}


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


def _with_ids(choice: Json, ids: Sequence[int] | None) -> Json:
    """Last in the choice, so that a proxy can take them out without decoding the event."""
    return choice if ids is None else {**choice, "token_ids": ids}


def _by_choice(deltas: Sequence[Delta]) -> list[list[Delta]]:
    groups: dict[int, list[Delta]] = {}
    for delta in deltas:
        groups.setdefault(delta.index, []).append(delta)
    return [groups[index] for index in sorted(groups)]


def _entries(deltas: Sequence[Delta]) -> list[tuple[int, TokenLogprobs]]:
    return [(d.token, d.logprobs) for d in deltas if d.token is not None and d.logprobs is not None]


def _finite(logprob: float) -> float:
    """JSON has no infinity; this is what OpenAI gives for tokens out of reach."""
    return logprob if math.isfinite(logprob) else -9999.0
