"""Streams of an engine that is exact about tokens, cut after any event: vLLM as it is, and SGLang.

Both are asked for greedy answers. Text is the same tokens again only where it ends with a word.
"""

import json
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from slurminfer.router.relay.stream.envelope import read_envelope
from slurminfer.router.relay.stream.events import without_token_ids
from slurminfer.router.relay.stream.resume import Continuation, Finished, plan
from slurminfer.router.relay.stream.transcript import Transcript

from .streams import CHAT, COMPLETIONS, put_together

TOKENS = [
    b"The", b" riv", b"ers", b":", b"\n", b"\n", b"1", b".", b" Am", b"azon", b" \xf0\x9f", b"\x8e", b"\x89", b"!",
    b" Two", b" \xf0\x9f\x8e", b"\x89", b" a", b"nd", b".", b"\n\n", b"2", b".", b" Ni", b"le",
]  # fmt: skip
ANSWER = b"".join(TOKENS).decode()
PROMPT, PROMPT_IDS = "Say: ", [900, 901, 902]
MESSAGES = [{"role": "user", "content": PROMPT}]
USAGE = {"stream_options": {"include_usage": True}}
WORD_ENDS = [
    at
    for at in range(1, len(TOKENS))
    if TOKENS[at][:1].isspace() and not TOKENS[at - 1].decode(errors="replace")[-1].isspace()
]


def decoded(count: int) -> str:
    """The text of the first tokens, without the half of a character at its end."""
    return b"".join(TOKENS[:count]).decode(errors="ignore")


class Engine:
    """Says ANSWER. Of `merged` tokens one event is made."""

    def __init__(self, name: str, merged: int = 1) -> None:
        self.name, self.asked, self._merged = name, list[dict[str, Any]](), merged

    def ask(self, body: bytes) -> list[bytes]:
        request = json.loads(body)
        self.asked.append(request)
        prompt, start = self._understood(request)
        names = {"id": f"id-{len(self.asked)}", "created": 1, "model": "m"}
        tells = self.name == "vllm" and request.get("return_token_ids", False)
        events = list(self._events(request, start, prompt if tells else None))
        if request.get("stream_options", {}).get("include_usage"):
            counts = {"prompt_tokens": len(prompt), "completion_tokens": self._said}
            events.append({"choices": [], "usage": {**counts, "total_tokens": sum(counts.values())}})
        data = [json.dumps({**names, **event}, separators=(",", ":")).encode() for event in events]
        return [b"data: " + one + b"\n\n" for one in [*data, b"[DONE]"]]

    def _understood(self, request: dict[str, Any]) -> tuple[list[int], int]:
        """The ids of the prompt, and how many tokens of the answer are in it."""
        if "messages" in request:
            text = request["messages"][-1]["content"] if request.get("continue_final_message") else ""
            text = text.strip() if self.name == "vllm" else text  # by its chat template
        elif isinstance(request["prompt"], list):
            known = request["prompt"]
            assert known == [*PROMPT_IDS, *range(len(known) - len(PROMPT_IDS))]
            return known, len(known) - len(PROMPT_IDS)
        else:
            text = request["prompt"].removeprefix(PROMPT)
        starts = [at for at in [0, *WORD_ENDS] if decoded(at) == text]
        assert starts, f"{text!r} is other tokens than the model has said"
        return [*PROMPT_IDS, *range(starts[0])], starts[0]

    def _events(self, request: dict[str, Any], start: int, prompt: list[int] | None) -> Iterator[dict[str, Any]]:
        is_chat, stops = "messages" in request, request.get("stop", [])
        if is_chat:
            first = {"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}
            yield {"choices": [first], **({} if prompt is None else {"prompt_token_ids": prompt})}
        held = max(map(len, stops), default=1) - 1 if self.name == "vllm" else 0
        end, finish, whole = self._end(request, start, stops)
        sent = len(decoded(start))
        for at in range(start, end, self._merged):
            last = min(at + self._merged, end)
            text = whole if last == end else decoded(last)[: max(sent, len(decoded(last)) - held)]
            if last < end and len(decoded(last)) - len(decoded(start)) <= held:
                text = decoded(start)
            new, sent = text[sent:], max(sent, len(text))
            choice = {"index": 0, **({"delta": {"content": new}} if is_chat else {"text": new})}
            choice["finish_reason"] = finish if last == end else None
            if prompt is not None:
                choice |= {} if is_chat else {"prompt_token_ids": prompt if at == start else None}
                choice["token_ids"] = list(range(at, last))
            yield {"choices": [choice]}
        self._said = end - start

    def _end(self, request: dict[str, Any], start: int, stops: list[str]) -> tuple[int, str, str]:
        """After which token it ends, why, and the text until there."""
        limit = start + request.get("max_tokens", 1000)
        for at in range(start + 1, min(limit, len(TOKENS)) + 1):
            new = decoded(at)[len(decoded(start)) :]
            found = [place for stop in stops if (place := new.find(stop)) >= 0]
            if found:
                return at, "stop", decoded(start) + new[: min(found)]
        end = min(limit, len(TOKENS))
        return end, "stop" if end == len(TOKENS) else "length", decoded(end)


def told(events: Sequence[bytes]) -> dict[str, Any]:
    """All that a client is told."""
    data = without_token_ids(b"".join(events))
    assert b'token_ids":[' not in data
    *parsed, done = [one.removeprefix(b"data: ") for one in data.split(b"\n\n") if one]
    assert done == b"[DONE]"
    chunks = [json.loads(one) for one in parsed]
    assert len({chunk["id"] for chunk in chunks}) == 1
    return put_together(chunks)


def relayed(engine: Engine, path: str, body: bytes, cuts: Sequence[int]) -> list[bytes]:
    """What is sent of streams that are cut after so many events each; the last one is whole."""
    envelope, transcript, sent = read_envelope(path, "", body), Transcript(), list[bytes]()
    for cut in (*cuts, None):
        how = plan(envelope, body, transcript, engine.name)
        if isinstance(how, Finished):
            return [*sent, how.events]
        assert isinstance(how, Continuation), how
        for event in engine.ask(how.body)[:cut]:
            whole = how.stitcher.feed(event) if how.stitcher else event
            transcript.add(whole)
            sent.append(whole)
            if how.stitcher is not None and how.stitcher.finished:
                return sent
    return sent


REQUESTS: dict[str, dict[str, Any]] = {
    "chat": {"messages": MESSAGES},
    "chat with stop": {"messages": MESSAGES, "max_tokens": 40, "stop": ["2. N", "never so long a stop"]},
    "chat with limit": {"messages": MESSAGES, "max_tokens": 18},
    "completion": {"prompt": PROMPT, "max_tokens": 100},
    "completion with stop": {"prompt": PROMPT, "max_tokens": 24, "stop": ["\n\n2", "long"]},
    "completion with limit": {"prompt": PROMPT, "max_tokens": 21, "stop": ["never so long"]},
}


@pytest.mark.parametrize("merged", [1, 2])
@pytest.mark.parametrize("name", REQUESTS)
@pytest.mark.parametrize("engine", ["vllm", "sglang"])
def test_cut_after_any_events(engine: str, name: str, merged: int) -> None:
    if merged > 1 and engine == "sglang":
        pytest.skip("SGLang does not tell how many tokens an event has")
    path = CHAT if "messages" in REQUESTS[name] else COMPLETIONS
    body = json.dumps({"model": "m", "stream": True, "temperature": 0, **USAGE, **REQUESTS[name]}).encode()
    is_counted = engine == "vllm" or "stop" not in REQUESTS[name]  # SGLang's last event may be a token, or none
    expected = told(relayed(Engine(engine, merged), path, body, []))
    assert expected["text"] and ANSWER.startswith(expected["text"])
    for cut in range(1, len(TOKENS) + 3):
        for cuts in ([cut], [cut, 1], [cut, 4], [cut, 2, 3]):
            found = told(relayed(Engine(engine, merged), path, body, cuts))
            found["usage"] = found["usage"] if is_counted else expected["usage"]
            assert found == expected, cuts
