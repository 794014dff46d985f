"""Answers of /v1/chat/completions as JSON."""

from collections.abc import Sequence

from ...tokenizer import Tokenizer
from .formats import Envelope, Json, Origin, by_choice, ending, entries, finite, with_ids
from .generation import Delta


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
        return self._envelope.chunk([with_ids(choice, ids)], usage)

    def whole(self, deltas: Sequence[Delta], usage: Json) -> Json:
        choices = []
        for group in by_choice(deltas):
            message = {"role": "assistant", "content": "".join(delta.text for delta in group), "refusal": None}
            choices.append({"index": group[0].index, "message": message, **self._ending(group)})
        return self._envelope.whole(choices, usage)

    def usage_chunk(self, usage: Json) -> Json:
        return self._envelope.chunk([], usage)

    def _ending(self, deltas: Sequence[Delta]) -> Json:
        content = [
            {**self._token(token, logprobs.chosen), "top_logprobs": [self._token(*pair) for pair in logprobs.top]}
            for token, logprobs in entries(deltas)
        ]
        return {"logprobs": {"content": content} if content else None, **ending(deltas[-1])}

    def _token(self, id: int, logprob: float) -> Json:
        raw = self._tokenizer.token_bytes(id)
        return {"token": raw.decode(errors="replace"), "logprob": finite(logprob), "bytes": list(raw)}
