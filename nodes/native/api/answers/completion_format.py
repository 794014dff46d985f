"""Answers of /v1/completions as JSON."""

from collections.abc import Sequence

import msgspec

from ...engine.request import TokenLogprobs
from ...tokenizer import Tokenizer
from .echo import Echo, text_offsets
from .formats import Envelope, Json, Origin, by_choice, ending, entries, finite, with_ids
from .generation import Delta
from .tokens import Offsets, token_name


class CompletionFormat:
    """/v1/completions. A chunk and the whole answer look alike."""

    def __init__(
        self, tokenizer: Tokenizer, origin: Origin, echoes: Sequence[Echo] = (), top_count: int | None = None
    ) -> None:
        """`echoes`: the prompts of all choices, if they are to be told; with `top_count`, their log-probabilities."""
        self._tokenizer, self._as_ids = tokenizer, origin.tokens_as_ids
        self._envelope = Envelope("text_completion", "text_completion", "cmpl", origin)
        self._offsets: dict[int, Offsets] = {}  # of each choice
        self._echoes, self._top_count = dict(enumerate(echoes)), top_count
        self._echoed = bool(echoes)

    def chunk(self, delta: Delta, usage: Json | None = None, ids: Sequence[int] | None = None) -> Json:
        return self._envelope.chunk([with_ids(self._choice([delta]), ids)], usage)

    def is_long(self, index: int) -> bool:
        return index in self._echoes

    def skip(self, index: int, tokens: Sequence[int]) -> None:
        echo = self._echoes.pop(index, None)
        self._offsets[index] = offsets = Offsets(0 if echo is None else len(echo.text))
        for token in tokens:
            offsets.add(self._tokenizer.token_bytes(token))

    def whole(self, deltas: Sequence[Delta], usage: Json) -> Json:
        return self._envelope.whole([self._choice(group) for group in by_choice(deltas)], usage)

    def with_prompts(self, answer: Json, logprobs: Sequence[msgspec.Raw]) -> Json:
        return _with_each(answer, "prompt_logprobs", logprobs)

    def with_prompt_ids(self, answer: Json, prompts: Sequence[Sequence[int]]) -> Json:
        return _with_each(answer, "prompt_token_ids", prompts)

    def usage_chunk(self, usage: Json) -> Json:
        return self._envelope.chunk([], usage)

    def _choice(self, deltas: Sequence[Delta]) -> Json:
        index, text = deltas[0].index, "".join(delta.text for delta in deltas)
        echo = self._echoes.pop(index, None)
        if echo is not None:
            self._offsets[index] = Offsets(len(echo.text))
        logprobs = self._logprobs(deltas)
        if echo is not None:
            text = echo.text + text
            logprobs = self._with_prompt(echo, logprobs)
        return {"index": index, "text": text, "logprobs": logprobs, **ending(deltas[-1])}

    def _logprobs(self, deltas: Sequence[Delta]) -> Json | None:
        # With the prompt, programs such as lm-eval count on an entry for each token: the end token has one too.
        told = entries(deltas, ends=self._echoed)
        if not told:
            return None
        index = deltas[0].index
        offsets = self._offsets.setdefault(index, Offsets())
        return {
            "tokens": [self._name(token) for token, _ in told],
            "token_logprobs": [finite(logprobs.chosen) for _, logprobs in told],
            "top_logprobs": [self._top(*entry) for entry in told] if any(one.top for _, one in told) else None,
            "text_offset": [offsets.add(self._tokenizer.token_bytes(token)) for token, _ in told],
        }

    def _with_prompt(self, echo: Echo, after: Json | None) -> Json | None:
        """The log-probabilities of a prompt, null for its first token, and of the answer `after` it."""
        if self._top_count is None or echo.logprobs is None:
            return after
        found: list[tuple[int, TokenLogprobs]] = [
            (token, TokenLogprobs(chosen, best[: self._top_count]))
            for token, (chosen, _, best) in zip(echo.tokens[1:], echo.logprobs, strict=True)
        ]
        prompt: Json = {
            "tokens": [self._name(token) for token in echo.tokens],
            "token_logprobs": [None, *(finite(logprobs.chosen) for _, logprobs in found)],
            "top_logprobs": [None, *(self._top(*entry) for entry in found)] if self._top_count else None,
            "text_offset": text_offsets(self._tokenizer, echo),
        }
        return prompt if after is None else {name: _join(value, after[name]) for name, value in prompt.items()}

    def _top(self, token: int, logprobs: TokenLogprobs) -> Json:
        """The best tokens, and the sampled one if it is none of them. Of tokens with the same text the better one."""
        found: Json = {}
        for id, value in (*logprobs.top, (token, logprobs.chosen)):
            name, value = self._name(id), finite(value)
            found[name] = max(value, found.get(name, value))
        return found

    def _name(self, id: int) -> str:
        return token_name(self._tokenizer, id, as_id=self._as_ids)


def _with_each(answer: Json, name: str, values: Sequence[object]) -> Json:
    """An answer whose choices have the value of their prompt."""
    choices = answer["choices"]
    each = len(choices) // len(values)
    return {**answer, "choices": [{**choice, name: values[i // each]} for i, choice in enumerate(choices)]}


def _join(first: list[object] | None, second: list[object] | None) -> list[object] | None:
    return None if first is None and second is None else [*(first or ()), *(second or ())]
