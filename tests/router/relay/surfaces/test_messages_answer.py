"""Answers of chat completions in Anthropic's API: whole, streamed, and both alike."""

import contextlib
import json
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from slurminfer.router.relay.surfaces.messages.surface import MessageTranslation
from slurminfer.router.relay.surfaces.messages.told import UNSIGNED
from slurminfer.router.relay.surfaces.translation import TranslationError

DONE = b"data: [DONE]\n\n"
USAGE = {"prompt_tokens": 9, "completion_tokens": 4, "prompt_tokens_details": {"cached_tokens": 5}}
COUNTED = {"input_tokens": 4, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 5, "output_tokens": 4}


def translation(stops: Sequence[str] = ()) -> MessageTranslation:
    return MessageTranslation(b"{}", "m", stops, "abc")


def whole(message, finish="stop", stops=(), **choice):
    answer = {"choices": [{"index": 0, "message": message, "finish_reason": finish, **choice}], "usage": USAGE}
    return translation(stops).whole(answer)


def event(delta=None, finish=None, usage=None, **choice):
    choices = [] if delta is None else [{"index": 0, "delta": delta, "finish_reason": finish, **choice}]
    return b"data: " + json.dumps({"id": "x", "model": "m", "choices": choices, "usage": usage}).encode() + b"\n\n"


def sent(events, stops=()):
    """The bytes that a client gets for these events, each of which comes alone."""
    one = translation(stops)
    return b"".join([*map(one.events, events), one.end()])


def read(data: bytes) -> list[dict[str, Any]]:
    """The data of all events; each must be named as it is typed."""
    found = []
    for block in data.decode().split("\n\n")[:-1]:
        name, payload = block.split("\n")
        found.append(json.loads(payload.removeprefix("data: ")))
        assert name == f"event: {found[-1]['type']}"
    return found


def put_together(events: list[dict[str, Any]]) -> dict[str, Any]:
    """The message of a stream, as Anthropic's clients put it together. Checks the order of the events."""
    assert (events[0]["type"], events[-2]["type"], events[-1]["type"]) == (
        "message_start",
        "message_delta",
        "message_stop",
    )
    message, is_open = events[0]["message"], False
    for one in events[1:-2]:
        if one["type"] == "content_block_start":
            assert not is_open and one["index"] == len(message["content"])
            message["content"].append({**one["content_block"], "json": ""})
            is_open = True
        elif one["type"] == "content_block_stop":
            assert is_open and one["index"] == len(message["content"]) - 1
            is_open = False
        else:
            assert is_open and one["type"] == "content_block_delta" and one["index"] == len(message["content"]) - 1
            _add(message["content"][-1], one["delta"])
    assert not is_open
    for block in message["content"]:
        parts = block.pop("json")
        if block["type"] == "tool_use":
            block["input"] = json.loads(parts) if parts else {}
    return {**message, **events[-2]["delta"], "usage": events[-2]["usage"]}


def _add(block, delta):
    name = delta["type"].removesuffix("_delta")
    if name == "input_json":
        block["json"] += delta["partial_json"]
    else:
        block[name] += delta[name]


def test_a_message():
    assert whole({"role": "assistant", "content": "Hello"}) == {
        "id": "msg_abc", "type": "message", "role": "assistant", "model": "m",
        "content": [{"type": "text", "text": "Hello"}], "stop_reason": "end_turn", "stop_sequence": None,
        "usage": COUNTED,
    }  # fmt: skip


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
def test_thinking_text_and_calls(field):
    call = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"at": 1}'}}
    message = whole({"content": "Let me see.", field: "Hm.", "tool_calls": [call]}, "tool_calls")
    assert message["content"] == [
        {"type": "thinking", "thinking": "Hm.", "signature": UNSIGNED},
        {"type": "text", "text": "Let me see."},
        {"type": "tool_use", "id": "c1", "name": "look", "input": {"at": 1}},
    ]
    assert message["stop_reason"] == "tool_use"


@pytest.mark.parametrize("arguments", ["", None, "{", "[1]", '"x"', '{"a": 1} x'])
def test_arguments_that_are_no_object_are_none(arguments):
    call = {"function": {"name": "look", "arguments": arguments}}
    (block,) = whole({"content": None, "tool_calls": [call]})["content"]
    assert block == {"type": "tool_use", "id": "toolu_abc_0", "name": "look", "input": {}}


@pytest.mark.parametrize(
    ("finish", "choice", "reason", "sequence"),
    [
        ("stop", {}, "end_turn", None),
        ("length", {}, "max_tokens", None),
        ("tool_calls", {}, "tool_use", None),
        ("content_filter", {}, "refusal", None),
        ("stop", {"stop_reason": "END"}, "stop_sequence", "END"),
        ("stop", {"matched_stop": "END"}, "stop_sequence", "END"),
        ("stop", {"matched_stop": 2}, "end_turn", None),
        ("stop", {"stop_reason": "</s>"}, "end_turn", None),
    ],
)
def test_stop_reasons(finish, choice, reason, sequence):
    message = whole({"content": "x"}, finish, ["END"], **choice)
    assert (message["stop_reason"], message["stop_sequence"]) == (reason, sequence)
    streamed = put_together(read(sent([event({"content": "x"}), event({}, finish, **choice), DONE], ["END"])))
    assert (streamed["stop_reason"], streamed["stop_sequence"]) == (reason, sequence)


def test_a_call_that_ends_with_stop_is_tool_use_all_the_same():
    call = {"id": "c1", "function": {"name": "look", "arguments": "{}"}}
    assert whole({"tool_calls": [call]}, "stop")["stop_reason"] == "tool_use"


@pytest.mark.parametrize("answer", [{}, {"choices": []}, {"choices": [1]}, {"choices": [{"message": {"content": 1}}]}])
def test_what_is_no_answer_cannot_be_translated(answer):
    with pytest.raises(TranslationError):
        translation().whole(answer)


def test_comments_become_pings_and_change_nothing():
    events = [b": wait\n\n", event({"content": "x"}), b": wait\n\n", event({}, "stop"), DONE]
    found = read(sent(events))
    assert [one["type"] for one in found].count("ping") == 2
    assert put_together([one for one in found if one["type"] != "ping"])["content"] == [{"type": "text", "text": "x"}]


@pytest.mark.parametrize(
    "bad",
    [
        b'data: {"error": {"message": "lost", "type": "server_error", "param": null, "code": "worker_lost"}}\n\n',
        b'data: {"choices": [{"delta": {"content": 1}}]}\n\n', b"data: {\n\n", b"data: 3\n\n",
        event({"tool_calls": [{"index": 0, "function": {"arguments": "late"}}]}),
    ],
)  # fmt: skip
def test_an_error_ends_the_stream(bad):
    calls = [{"index": index, "id": f"c{index}", "function": {"name": "look"}} for index in (0, 1)]
    found = read(sent([event({"tool_calls": calls}), bad, event({"content": "more"}), DONE]))
    assert [one["type"] for one in found][-1] == "error"
    assert [one["type"] for one in found].count("message_stop") == 0
    assert (found[-1]["error"]["type"], found[-1]["request_id"]) == ("api_error", "abc")


def test_a_call_may_come_in_crumbs():
    crumbs = [
        {"index": 0, "id": "c1", "function": {"arguments": ""}},
        {"index": 0, "function": {"name": "look", "arguments": '{"a"'}},
        {"index": 0, "function": {"arguments": ": 1}"}},
    ]
    events = [*(event({"tool_calls": [crumb]}) for crumb in crumbs), event({}, "tool_calls"), DONE]
    assert put_together(read(sent(events)))["content"] == [
        {"type": "tool_use", "id": "c1", "name": "look", "input": {"a": 1}}
    ]


def test_space_before_a_call_is_no_text():
    call = {"index": 0, "id": "c1", "function": {"name": "look", "arguments": "{}"}}
    events = [
        event({"content": "\n"}),
        event({"content": "\n"}),
        event({"tool_calls": [call]}),
        event({}, "stop"),
        DONE,
    ]
    assert [block["type"] for block in put_together(read(sent(events)))["content"]] == ["tool_use"]
    assert whole({"content": "\n\n", "tool_calls": [call]})["content"][0]["type"] == "tool_use"


def test_a_stream_without_its_end_gets_one():
    assert put_together(read(sent([event({"content": "x"}, "stop", USAGE)])))["usage"] == COUNTED


words = st.text(max_size=12)
parameters = st.dictionaries(st.text(max_size=4), st.integers(), max_size=3)


@st.composite
def answers(draw):
    """A message of chat completions, and events that say the same in pieces of any size."""
    thinking, said = draw(words), draw(words)
    inputs = draw(st.lists(parameters, max_size=3))
    calls: list[dict[str, Any]] = [
        {"id": f"c{index}", "type": "function", "function": {"name": "look", "arguments": json.dumps(each)}}
        for index, each in enumerate(inputs)
    ]
    finish = draw(st.sampled_from(["stop", "length", "tool_calls"]))
    message: dict[str, Any] = {"role": "assistant", "content": said or None}
    message |= {"reasoning_content": thinking} if thinking else {}
    message |= {"tool_calls": calls} if calls else {}
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
    deltas += [{"reasoning_content": piece} for piece in draw(pieces(thinking))]
    deltas += [{"content": piece} for piece in draw(pieces(said))]
    for index, call in enumerate(calls):
        function = call["function"]
        deltas.append({"tool_calls": [{**call, "index": index, "function": {**function, "arguments": ""}}]})
        for piece in draw(pieces(function["arguments"])):
            deltas.append({"tool_calls": [{"index": index, "function": {"arguments": piece}}]})
    events = [event(delta) for delta in deltas] + [event({}, finish), event(None, usage=USAGE), DONE]
    return message, finish, events


@st.composite
def pieces(draw, text):
    cuts = sorted(draw(st.lists(st.integers(0, len(text)), max_size=4)))
    return [text[start:end] for start, end in pairwise([0, *cuts, len(text)])]


@given(answers(), st.data())
def test_a_stream_says_what_the_whole_answer_says(answer, data):
    message, finish, events = answer
    one, alone = translation(), sent(events)
    ends = [*sorted(data.draw(st.sets(st.integers(0, len(events))))), len(events)]
    grouped = b"".join(one.events(b"".join(events[start:end])) for start, end in pairwise([0, *ends])) + one.end()
    assert grouped == alone, "it does not matter how many events come at once"
    expected = translation().whole({"choices": [{"message": message, "finish_reason": finish}], "usage": USAGE})
    assert put_together(read(alone)) == expected


@given(st.lists(st.binary(max_size=40) | st.sampled_from([DONE, b": c\n\n", event({"content": "x"})]), max_size=6))
def test_nothing_that_an_engine_may_send_raises(chunks):
    one = translation()
    for chunk in chunks:
        one.events(chunk)
    one.end()


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["choices", "delta", "content", "tool_calls", "function", "usage", "index", "error"]), inner
        )
    ),
    max_leaves=12,
)


@given(json_values)
def test_no_event_of_json_raises(value):
    one = translation()
    read(one.events(b"data: " + msgspec.json.encode(value) + b"\n\n") + one.end())
    if isinstance(value, dict):
        with contextlib.suppress(TranslationError):
            one.whole(value)
