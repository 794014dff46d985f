"""Answers of /v1/chat/completions as JSON."""

from collections.abc import Sequence

import msgspec

from ...tokenizer import Tokenizer
from .formats import Envelope, Json, Origin, by_choice, ending, entries, finite, with_ids
from .generation import Delta
from .reader import CallDelta, merged


class ChatFormat:
    """/v1/chat/completions."""

    def __init__(self, tokenizer: Tokenizer, origin: Origin) -> None:
        self._tokenizer, self._as_ids = tokenizer, origin.tokens_as_ids
        self._envelope = Envelope("chat.completion", "chat.completion.chunk", "chatcmpl", origin)
        self._begun: set[int] = set()

    def is_long(self, index: int) -> bool:
        return False

    def skip(self, index: int, tokens: Sequence[int]) -> None:
        self._begun.add(index)

    def chunk(self, delta: Delta, usage: Json | None = None, ids: Sequence[int] | None = None) -> Json:
        choice = {"index": delta.index, "delta": self._said(delta), **self._ending([delta])}
        return self._envelope.chunk([with_ids(choice, ids)], usage)

    def _said(self, delta: Delta) -> Json:
        """What is new. The first delta of a choice has its role too."""
        said: Json = {}
        if delta.index not in self._begun:
            self._begun.add(delta.index)
            said = {"role": "assistant", "content": None if delta.calls else ""}
        if delta.reasoning:
            said["reasoning_content"] = delta.reasoning
        if delta.calls:
            said["tool_calls"] = [_call_delta(call) for call in delta.calls]
        return {**said, "content": delta.text} if delta.text or not (said or delta.finish) else said

    def whole(self, deltas: Sequence[Delta], usage: Json) -> Json:
        choices = []
        for group in by_choice(deltas):
            choices.append({"index": group[0].index, "message": _message(group), **self._ending(group)})
        return self._envelope.whole(choices, usage)

    def with_prompts(self, answer: Json, logprobs: Sequence[msgspec.Raw]) -> Json:
        return {**answer, "prompt_logprobs": logprobs[0]}

    def with_prompt_ids(self, answer: Json, prompts: Sequence[Sequence[int]]) -> Json:
        return {**answer, "prompt_token_ids": prompts[0]}

    def usage_chunk(self, usage: Json) -> Json:
        return self._envelope.chunk([], usage)

    def _ending(self, deltas: Sequence[Delta]) -> Json:
        content = [
            {**self._token(token, logprobs.chosen), "top_logprobs": [self._token(*pair) for pair in logprobs.top]}
            for token, logprobs in entries(deltas)
        ]
        logprobs = {"content": content, "refusal": None} if content else None
        return {"logprobs": logprobs, **ending(deltas[-1])}

    def _token(self, id: int, logprob: float) -> Json:
        raw = self._tokenizer.token_bytes(id)
        name = f"token_id:{id}" if self._as_ids else raw.decode(errors="replace")
        return {"token": name, "logprob": finite(logprob), "bytes": list(raw)}


def _message(deltas: Sequence[Delta]) -> Json:
    """The whole answer. Fields of what models think and call are there only where there is such a thing."""
    text = "".join(delta.text for delta in deltas)
    thought = "".join(delta.reasoning for delta in deltas)
    calls = merged(call for delta in deltas for call in delta.calls)
    said: Json = {"role": "assistant", "content": text if text or not (calls or thought) else None, "refusal": None}
    if thought:
        said["reasoning_content"] = thought
    if calls:
        said["tool_calls"] = [_call(call) for call in calls]
    return said


def _call(call: CallDelta) -> Json:
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}


def _call_delta(call: CallDelta) -> Json:
    if call.name is None:
        return {"index": call.index, "function": {"arguments": call.arguments}}
    return {"index": call.index, **_call(call)}
