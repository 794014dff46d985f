"""Streams that are cut anywhere and continued by an engine that knows only text."""

import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slurminfer.router.relay.stream.envelope import read_envelope
from slurminfer.router.relay.stream.events import EventGate
from slurminfer.router.relay.stream.resume import Continuation, Finished, Impossible, plan, prepare
from slurminfer.router.relay.stream.stitcher import Stitcher
from slurminfer.router.relay.stream.transcript import Transcript

from .streams import CHAT, COMPLETIONS, continuation, put_together

ANSWER = 'Grüße, "wörld"!\n🎉 data: x STOP and a last word'
PROMPT = "Say: "
MESSAGES = [{"role": "user", "content": PROMPT}]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["index", "text", "delta", "content", "role", "choices"]), inner, max_size=3)
    ),
    max_leaves=8,
)


def overlap(text: str, stop: str) -> int:
    """How much of the end of `text` may begin `stop`."""
    return next((length for length in range(len(stop) - 1, 0, -1) if text.endswith(stop[:length])), 0)


class Engine:
    """Says ANSWER, a character a token, and holds back what may become a stop string, as engines do.

    Each stream has a name of its own.
    """

    def __init__(self, *, leaks: bool = False, is_crlf: bool = False) -> None:
        self.asked = 0
        self._leaks = leaks  # holds nothing back
        self._end = b"\r\n\r\n" if is_crlf else b"\n\n"

    def ask(self, body: bytes) -> bytes:
        request = json.loads(body)
        self.asked += 1
        is_chat = "messages" in request
        said = self._said(request, is_chat)
        pieces, finish = self._pieces(request, ANSWER[len(said) :])
        events = [self._chunk(is_chat, {"role": "assistant", "content": ""}, None)] if is_chat else []
        events += [self._chunk(is_chat, {"content": piece} if is_chat else piece, None) for piece in pieces]
        events.append(self._chunk(is_chat, {} if is_chat else "", finish))
        if (request.get("stream_options") or {}).get("include_usage"):
            prompt = len(PROMPT) + len(said)
            spent = {"prompt_tokens": prompt, "completion_tokens": len(pieces), "total_tokens": prompt + len(pieces)}
            events.append({**events[-1], "choices": [], "usage": spent})
        data = [json.dumps(event, separators=(",", ":"), ensure_ascii=False).encode() for event in events]
        return b"".join(b"data: " + one + self._end for one in [*data, b"[DONE]"])

    def _said(self, request: dict[str, Any], is_chat: bool) -> str:
        if not is_chat:
            return str(request["prompt"].removeprefix(PROMPT))
        last = request["messages"][-1]
        if not request.get("continue_final_message"):
            return ""
        assert last["role"] == "assistant" and request["add_generation_prompt"] is False
        assert request["messages"][:-1] == MESSAGES
        return str(last["content"])

    def _pieces(self, request: dict[str, Any], rest: str) -> tuple[list[str], str]:
        limit = request.get("max_tokens", 10**9)
        stops = request.get("stop") or []
        text, finish = rest[:limit], "length" if limit < len(rest) else "stop"
        found = min((place for stop in stops if (place := text.find(stop)) >= 0), default=-1)
        if found >= 0:
            text, finish = text[:found], "stop"
        pieces, told = [], 0
        for end in range(1, len(text) + 1):
            held = 0 if self._leaks else max((overlap(text[:end], stop) for stop in stops), default=0)
            pieces.append(text[told : end - held] if end - held > told else "")
            told = max(told, end - held)
        if told < len(text):
            pieces[-1] += text[told:]
        return pieces, finish

    def _chunk(self, is_chat: bool, said: Any, finish: str | None) -> dict[str, Any]:
        choice = {"index": 0, "delta" if is_chat else "text": said, "finish_reason": finish}
        return {"id": f"id-{self.asked}", "created": self.asked, "model": "m", "choices": [choice]}


def told(data: bytes) -> dict[str, Any]:
    """All that a client is told, put together."""
    *parsed, done = [event for event in data.replace(b"\r\n", b"\n").split(b"\n\n") if event]
    assert done == b"data: [DONE]"
    chunks = [json.loads(event.removeprefix(b"data: ")) for event in parsed]
    assert len({(chunk["id"], chunk["created"]) for chunk in chunks}) == 1
    return put_together(chunks)


def relayed(engine: Engine, path: str, body: bytes, cuts: Sequence[int]) -> bytes:
    """What the client gets of streams that are cut after so many bytes each; the last one is whole."""
    envelope = read_envelope(path, "", body)
    transcript, sent = Transcript(), b""
    for cut in (*cuts, None):
        how = plan(envelope, body, transcript, "sglang")
        if isinstance(how, Finished):
            return sent + how.events
        assert isinstance(how, Continuation), how
        gate = EventGate()
        answer = engine.ask(how.body)[:cut]
        for start in range(0, len(answer), 70):
            whole = gate.feed(answer[start : start + 70])
            whole = how.stitcher.feed(whole) if how.stitcher else whole
            transcript.add(whole)
            sent += whole
    return sent


@settings(deadline=None, max_examples=60)
@given(
    is_chat=st.booleans(),
    is_crlf=st.booleans(),
    cuts=st.lists(st.integers(0, 2500), min_size=1, max_size=3),
    more=st.fixed_dictionaries(
        {},
        optional={
            "max_tokens": st.integers(1, len(ANSWER) + 2),
            "stop": st.sampled_from([["STOP"], ["! "], [", ", "data: x S", "TO"], ["never"]]),
            "stream_options": st.just({"include_usage": True}),
        },
    ),
)
def test_cut_at_any_byte(is_chat: bool, is_crlf: bool, cuts: list[int], more: dict[str, Any]) -> None:
    asked = {"messages": MESSAGES} if is_chat else {"prompt": PROMPT, "max_tokens": 100}
    path = CHAT if is_chat else COMPLETIONS
    body = json.dumps({**asked, "model": "m", "stream": True, **more}).encode()
    undisturbed = told(Engine().ask(prepare(body, read_envelope(path, "", body), "sglang")))
    found = told(relayed(Engine(is_crlf=is_crlf), path, body, cuts))
    if "stream_options" not in more:
        undisturbed["usage"], found["usage"] = [], []
    if {"max_tokens", "stop"} <= more.keys() and (extra := found["text"].removeprefix(undisturbed["text"])):
        # Characters that the engine held back came in one event, which counts as one token.
        assert len(extra) < max(map(len, more["stop"]))
        return
    if "stop" in more and found["usage"] != undisturbed["usage"]:  # the same: it is one token too few
        [counted], [expected] = found.pop("usage"), undisturbed.pop("usage")
        assert counted["total_tokens"] == expected["total_tokens"]
        assert 0 <= expected["completion_tokens"] - counted["completion_tokens"] < max(map(len, more["stop"]))
    assert found == undisturbed


def delta(index: int = 0, **fields: Any) -> dict[str, Any]:
    return {"choices": [{"index": index, "delta": fields, "finish_reason": None}]}


def text(text: str, **fields: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "text": text, "finish_reason": None, **fields}]}


CALL: dict[str, Any] = {"tool_calls": [{"index": 0, "id": "c", "function": {"name": "f", "arguments": ""}}]}
USER = {"messages": MESSAGES}


@pytest.mark.parametrize(
    ("body", "chunks", "reason"),
    [
        (USER, [delta(content="a"), delta(**CALL)], "a tool call"),
        (USER, [delta(reasoning_content="hm")], "reasoning"),
        (USER, [delta(reasoning="hm"), delta(content="a")], "reasoning"),
        ({**USER, "n": 2}, [delta(content="a")], "several choices"),
        ({"prompt": ["a", "b"]}, [text("x")], "several choices"),
        ({"prompt": "a", "best_of": 2}, [text("x")], "several choices"),
        ({**USER, "logprobs": True}, [delta(content="a")], "logprobs"),
        ({**USER, "response_format": {"type": "json_object"}}, [delta(content="a")], "response_format"),
        ({**USER, "guided_regex": "a+"}, [delta(content="a")], "guided_regex"),
        ({**USER, "tool_choice": "required"}, [delta(content="a")], "tool_choice"),
        ({"prompt": "a", "echo": True}, [text("ax")], "echo"),
        ({"prompt": "a", "suffix": "b"}, [text("x")], "suffix"),
        ({"prompt": [1, 2]}, [text("x")], "ids are not known"),
        ({"prompt": "a", "continue_token_ids": [7]}, [text("x")], "continue_token_ids"),
        (USER, [{"error": {"message": "no"}}], "unknown form"),
        (USER, [{"type": "other"}], "unknown form"),
    ],
)
def test_impossible(body: dict[str, Any], chunks: list[dict[str, Any]], reason: str) -> None:
    how = continuation(body, *chunks)
    assert isinstance(how, Impossible)
    assert reason in how.reason


@pytest.mark.parametrize("more", [{"n": 2}, {"logprobs": True}, {"response_format": {"type": "json_object"}}])
def test_begins_anew_while_nothing_was_said(more: dict[str, Any]) -> None:
    assert continuation({**USER, **more}).stitcher is None
    how = continuation({**USER, **more}, delta(role="assistant", content=""))
    assert "continue_final_message" not in json.loads(how.body)
    again = how.stitcher.feed(b'data: {"id":"2","choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}\n\n')
    assert again == b""
    other = how.stitcher.feed(b'data: {"id":"2","choices":[{"index":1,"delta":{"role":"assistant","content":""}}]}\n\n')
    assert b'"role"' in other and b'"id":"1"' in other


def test_other_endpoints_begin_anew_or_not_at_all() -> None:
    body = b'{"model":"m","stream":true,"messages":[]}'
    envelope, transcript = read_envelope("/v1/messages", "", body), Transcript()
    assert plan(envelope, body, transcript, "native") == Continuation(body, None)
    transcript.add(b'event: message_start\ndata: {"type":"message_start"}\n\n')
    assert isinstance(plan(envelope, body, transcript, "native"), Impossible)


def test_bounds_are_reduced() -> None:
    said = [delta(content="a"), delta(content="b")]
    body = json.loads(continuation({**USER, "max_tokens": 9, "max_completion_tokens": 5, "min_tokens": 3}, *said).body)
    assert (body["max_tokens"], body["max_completion_tokens"], body["min_tokens"]) == (3, 3, 1)
    assert json.loads(continuation({"prompt": "a"}, text("x")).body)["max_tokens"] == 15
    assert "max_tokens" not in json.loads(continuation(USER, *said).body)


def test_bound_that_is_reached_ends_the_stream() -> None:
    how = continuation({**USER, "max_tokens": 1}, delta(role="assistant"), delta(content="b"))
    assert isinstance(how, Finished)
    assert b'"finish_reason":"length"' in how.events and how.events.endswith(b"data: [DONE]\n\n")


def test_nothing_follows_the_end() -> None:
    body = b'{"model":"m","stream":true,"prompt":"a"}'
    transcript = Transcript()
    transcript.add(b'data: {"choices":[{"index":0,"text":"a","finish_reason":"stop"}]}\n\ndata: [DONE]\n\n')
    assert plan(read_envelope(COMPLETIONS, "", body), body, transcript, "native") == Finished(b"")


def test_a_message_that_is_being_continued_is_not_doubled() -> None:
    last = {"role": "assistant", "content": [{"type": "text", "text": "On"}], "name": "x"}
    how = continuation({"messages": [*MESSAGES, last], "continue_final_message": True}, delta(content="ce"))
    assert json.loads(how.body)["messages"] == [*MESSAGES, {**last, "content": "Once"}]
    closed = continuation({"messages": [*MESSAGES, last]}, delta(content="ce"))
    assert json.loads(closed.body)["messages"] == [*MESSAGES, last, {"role": "assistant", "content": "ce"}]


def test_token_ids() -> None:
    assert json.loads(continuation({"prompt": [1, 2]}, text("x", token_ids=[3, 4])).body)["prompt"] == [1, 2, 3, 4]
    native = continuation({"prompt": "a", "n": 1}, text("", token_ids=[3]), text("x", token_ids=[4]), engine="native")
    assert json.loads(native.body)["continue_token_ids"] == [3, 4]
    mixed = continuation({"prompt": "a"}, text("x", token_ids=[3]), text("y"), engine="native")
    assert json.loads(mixed.body)["prompt"] == "axy"


def _with_ids(said: dict[str, Any], *ids: int) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": said, "finish_reason": None, "token_ids": list(ids)}]}


def test_the_native_engine_goes_on_with_what_it_has_thought_and_called_itself() -> None:
    asked = {**USER, "tools": [{"type": "function"}], "tool_choice": "required"}
    chunks = [_with_ids({"role": "assistant", "reasoning_content": "hm"}, 3), _with_ids(CALL, 4, 5)]
    native = continuation(asked, *chunks, engine="native")
    assert json.loads(native.body)["continue_token_ids"] == [3, 4, 5]
    without = continuation(asked, *chunks, delta(reasoning_content="hm"), engine="native")
    assert isinstance(without, Impossible), "it is not known what the last event's tokens are"
    other = {**chunks[0], "prompt_token_ids": [1]}
    assert isinstance(continuation(asked, other, chunks[1], engine="native"), Impossible), "vLLM has begun it"
    assert isinstance(continuation(asked, *chunks, engine="vllm"), Impossible)


def test_too_long_an_answer_is_not_kept() -> None:
    body = b'{"model":"m","stream":true,"prompt":"a"}'
    transcript = Transcript(most_bytes=100_000)
    for _ in range(3000):
        transcript.add(b'data: {"choices":[{"index":0,"text":"aaaaaaaaa"}]}\n\n')
    how = plan(read_envelope(COMPLETIONS, "", body), body, transcript, "vllm")
    assert isinstance(how, Impossible) and "too long" in how.reason


def test_a_long_answer_is_kept() -> None:
    words = [f"{number} " for number in range(5000)]
    transcript = Transcript()
    for index, word in enumerate(words):
        transcript.add(b"data: " + json.dumps(text(word)).encode() + b"\n\n")
        if index == 4000:
            assert transcript.story().choices[0].tokens == 4001
    assert "".join(transcript.story().choices[0].text) == "".join(words)


@pytest.mark.parametrize(("keeps", "rest"), [(False, ""), (True, "OP")])
def test_stop_string_that_began_before_the_cut(keeps: bool, rest: str) -> None:
    """An engine that holds nothing back has sent the first half of a stop string."""
    body = {"prompt": "a", "max_tokens": 50, "stop": ["STOP"], "include_stop_str_in_output": keeps,
            "stream_options": {"include_usage": True}}  # fmt: skip
    stitcher: Stitcher = continuation(body, text("see ST")).stitcher
    pieces = [b"data: " + json.dumps({"id": "2", **text(piece)}).encode() + b"\n\n" for piece in ("O", "P", " on")]
    out = b"".join(map(stitcher.feed, pieces))
    assert stitcher.finished
    first, usage, done = out.split(b"\n\n")[:3]
    choice = json.loads(first[6:])["choices"][0]
    assert (choice["text"], choice["finish_reason"]) == (rest, "stop")
    assert json.loads(usage[6:])["usage"]["completion_tokens"] == 3
    assert done == b"data: [DONE]"


def test_what_only_looks_like_a_stop_string_is_sent() -> None:
    stitcher: Stitcher = continuation({"prompt": "a", "max_tokens": 50, "stop": ["STOP"]}, text("see ST")).stitcher
    pieces = [b"data: " + json.dumps({"id": "2", **text(piece)}).encode() + b"\n\n" for piece in ("O", "RE")]
    assert stitcher.feed(pieces[0]) == b""
    out = stitcher.feed(pieces[1])
    assert [json.loads(event[6:])["choices"][0]["text"] for event in out.split(b"\n\n")[:2]] == ["O", "RE"]
    assert not stitcher.finished


def test_comments_and_errors_pass() -> None:
    stitcher: Stitcher = continuation({"prompt": "a", "max_tokens": 50}, text("x")).stitcher
    for event in (b": ping\n\n", b'data: {"error":{"message":"no"}}\n\n'):
        assert stitcher.feed(event) == event


def test_usage_is_that_of_both_workers() -> None:
    first = {"usage": {"prompt_tokens": 4, "completion_tokens": 7}, **text("x")}
    for chunks, prompt in (([text("x")], 9), ([first], 4)):
        stitcher: Stitcher = continuation({"prompt": "a", "max_tokens": 50}, *chunks).stitcher
        counts = {"prompt_tokens": 10, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": 10}}
        out = stitcher.feed(b"data: " + json.dumps({"choices": [], "usage": counts}).encode() + b"\n\n")
        usage = json.loads(out[6:])["usage"]
        completion = 5 + (7 if prompt == 4 else 1)
        assert (usage["prompt_tokens"], usage["completion_tokens"]) == (prompt, completion)
        assert (usage["total_tokens"], usage["prompt_tokens_details"]["cached_tokens"]) == (prompt + completion, prompt)


@settings(deadline=None)
@given(json_values)
def test_events_of_any_form_are_survived(value: Any) -> None:
    for chunk in (value, {"choices": value}, {"choices": [value]}, {"choices": [{"delta": value, "text": value}]},
                  {"choices": [{"index": value, "text": "a", "token_ids": value}], "usage": value}):  # fmt: skip
        event = b"data: " + json.dumps(chunk).encode() + b"\n\n"
        transcript, body = Transcript(), b'{"model":"m","stream":true,"prompt":"a"}'
        transcript.add(event)
        for engine in ("native", "vllm"):
            assert plan(read_envelope(COMPLETIONS, "", body), body, transcript, engine)
        stitcher: Stitcher = continuation({"prompt": "a", "max_tokens": 50, "stop": ["xa"]}, text("x")).stitcher
        assert isinstance(stitcher.feed(event), bytes)
