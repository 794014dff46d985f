"""Answers of /v1/completions as JSON."""

from collections.abc import Sequence

from ...engine.request import TokenLogprobs
from ...tokenizer import Tokenizer
from .formats import Envelope, Json, Origin, by_choice, ending, entries, finite, with_ids
from .generation import Delta


class CompletionFormat:
    """/v1/completions. A chunk and the whole answer look alike."""

    def __init__(self, tokenizer: Tokenizer, origin: Origin) -> None:
        self._tokenizer = tokenizer
        self._envelope = Envelope("text_completion", "text_completion", "cmpl", origin)
        self._offsets: dict[int, int] = {}  # of the next token in each choice's text, in characters

    def chunk(self, delta: Delta, usage: Json | None = None, ids: Sequence[int] | None = None) -> Json:
        return self._envelope.chunk([with_ids(self._choice([delta]), ids)], usage)

    def skip(self, tokens: Sequence[int]) -> None:
        self._offsets[0] = sum(len(self._token(token)) for token in tokens)

    def whole(self, deltas: Sequence[Delta], usage: Json) -> Json:
        return self._envelope.whole([self._choice(group) for group in by_choice(deltas)], usage)

    def usage_chunk(self, usage: Json) -> Json:
        return self._envelope.chunk([], usage)

    def _choice(self, deltas: Sequence[Delta]) -> Json:
        text = "".join(delta.text for delta in deltas)
        return {"index": deltas[0].index, "text": text, "logprobs": self._logprobs(deltas), **ending(deltas[-1])}

    def _logprobs(self, deltas: Sequence[Delta]) -> Json | None:
        told = entries(deltas)
        if not told:
            return None
        index = deltas[0].index
        tokens = [self._token(token) for token, _ in told]
        offsets = []
        for token in tokens:
            offsets.append(self._offsets.get(index, 0))
            self._offsets[index] = offsets[-1] + len(token)
        return {
            "tokens": tokens,
            "token_logprobs": [finite(logprobs.chosen) for _, logprobs in told],
            "top_logprobs": [self._top(*entry) for entry in told] if any(one.top for _, one in told) else None,
            "text_offset": offsets,
        }

    def _top(self, token: int, logprobs: TokenLogprobs) -> Json:
        """The best tokens, and the sampled one if it is none of them. Of tokens with the same text the better one."""
        found: Json = {}
        for id, value in logprobs.top:
            found.setdefault(self._token(id), finite(value))
        found[self._token(token)] = finite(logprobs.chosen)
        return found

    def _token(self, id: int) -> str:
        return self._tokenizer.token_bytes(id).decode(errors="replace")
