"""Answers of chat completions become responses, whole and as events; validated against the SDK's own types."""

import json
from itertools import pairwise
from typing import Any

import msgspec
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai import omit
from openai._models import construct_type
from openai.lib.streaming.responses._responses import ResponseStreamState
from openai.types.responses import Response, ResponseStreamEvent

from .chats import DONE, FUNCTION, USAGE, answer, data, event, events_of, translation

_event = pydantic.TypeAdapter(ResponseStreamEvent)
CALLS = [
    {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Ulm"}'}},
    {"id": "c2", "type": "function", "function": {"name": "weather", "arguments": "{}"}},
]
LOGPROBS = {
    "content": [
        {"token": "a", "bytes": [97], "logprob": -0.5,
         "top_logprobs": [{"token": "a", "bytes": None, "logprob": -0.5}]},
    ]
}  # fmt: skip
ASKED: dict[str, Any] = {
    "instructions": "Be.", "tools": [FUNCTION], "metadata": {"a": "b"}, "reasoning": {"effort": "low"}, "user": "u",
    "text": {"format": {"type": "json_schema", "name": "n", "schema": {"type": "object"}}}, "max_output_tokens": 9,
    "tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "weather"}]},
}  # fmt: skip


def accumulated(stream: bytes) -> Any:
    """What the SDK's accumulator makes of a stream."""
    state: ResponseStreamState[Any] = ResponseStreamState(input_tools=omit, text_format=omit)
    for one in events_of(stream):
        state.handle_event(construct_type(type_=ResponseStreamEvent, value=one))  # type: ignore[arg-type]
    assert state._completed_response is not None
    return state._completed_response


def from_deltas(stream: bytes) -> list[str]:
    """The text or the arguments of each item, from what its deltas say."""
    found: dict[str, str] = {}
    for one in events_of(stream):
        if one["type"] == "response.output_item.added":
            found[one["item"]["id"]] = ""
        elif one["type"].endswith(".delta"):
            found[one["item_id"]] += one["delta"]
    return list(found.values())


def texts_of(item: dict[str, Any]) -> str:
    return item["arguments"] if item["type"] == "function_call" else item["content"][0]["text"]


def strictly(found: dict[str, Any]) -> Response:
    return Response.model_validate_json(json.dumps(found), strict=True)


def checked(stream: bytes) -> list[dict[str, Any]]:
    """The events of a stream: each valid, numbered without gaps, and as consistent as a client may expect."""
    found = events_of(stream)
    for one in found:
        _event.validate_json(json.dumps(one), strict=True)
    assert [one["sequence_number"] for one in found] == list(range(len(found)))
    added = [one["output_index"] for one in found if one["type"] == "response.output_item.added"]
    done = [one["output_index"] for one in found if one["type"] == "response.output_item.done"]
    assert added == sorted(added)
    if found[-1]["type"] in ("response.completed", "response.incomplete"):
        assert sorted(done) == added
    return found


def whole(**message: Any) -> dict[str, Any]:
    found = translation(**ASKED).whole(answer(message))
    return decoded(found)


def decoded(found: dict[str, Any]) -> dict[str, Any]:
    """As clients get it."""
    return dict(json.loads(msgspec.json.encode(found)))


def test_a_text() -> None:
    found = strictly(whole(content="Hello"))
    assert found.output_text == "Hello"
    assert (found.status, found.model, found.instructions) == ("completed", "served", "Be.")
    assert found.metadata == {"a": "b"} and found.max_output_tokens == 9
    assert found.tools[0].name == "weather"  # type: ignore[union-attr]
    assert found.usage is not None
    assert (found.usage.input_tokens, found.usage.output_tokens, found.usage.total_tokens) == (7, 5, 12)
    assert found.usage.input_tokens_details.cached_tokens == 3
    assert found.usage.output_tokens_details.reasoning_tokens == 2


def test_all_kinds_of_output() -> None:
    found = strictly(whole(reasoning_content="Hm.", content="I look.", tool_calls=CALLS))
    assert [item.type for item in found.output] == ["reasoning", "message", "function_call", "function_call"]
    assert found.output[0].content[0].text == "Hm."  # type: ignore[union-attr,index]
    assert found.output[2].arguments == '{"city":"Ulm"}'  # type: ignore[union-attr]
    assert [item.call_id for item in found.output[2:]] == ["c1", "c2"]  # type: ignore[union-attr]
    ids = [item.id for item in found.output]
    assert [str(id).partition("_")[0] for id in ids] == ["rs", "msg", "fc", "fc"] and len(set(ids)) == 4


def test_a_call_of_a_function_in_a_namespace() -> None:
    space = {"type": "namespace", "name": "agents", "description": "Of all.", "tools": [FUNCTION]}
    function = {"name": "agents__weather", "arguments": "{}"}
    call = {"index": 0, "id": "c1", "type": "function", "function": function}
    streamed = translation(tools=[FUNCTION, space], stream=True)
    found = checked(streamed.events(event({"tool_calls": [call]}) + DONE))[-1]["response"]
    assert (found["output"][0]["name"], found["output"][0]["namespace"]) == ("weather", "agents")
    assert strictly(found).tools[1].type == "namespace"
    call["function"] = {**function, "name": "weather"}
    other = checked(translation(tools=[space], stream=True).events(event({"tool_calls": [call]}) + DONE))
    assert "namespace" not in other[-1]["response"]["output"][0]


def test_reasoning_by_its_newer_name() -> None:
    assert whole(reasoning="Hm.", content="x")["output"][0]["content"][0]["text"] == "Hm."


@pytest.mark.parametrize(("finish", "reason"), [("length", "max_output_tokens"), ("content_filter", "content_filter")])
def test_an_answer_that_is_cut_off_is_incomplete(finish: str, reason: str) -> None:
    found = translation().whole(answer({"content": "Hel"}, finish))
    assert strictly(found).incomplete_details.reason == reason  # type: ignore[union-attr]
    assert found["status"] == found["output"][0]["status"] == "incomplete"
    events = checked(translation(stream=True).events(event({"content": "Hel"}) + event({}, finish) + DONE))
    assert events[-1]["type"] == "response.incomplete"
    assert events[-1]["response"]["output"] == found["output"]


def test_an_answer_without_anything_has_an_empty_text() -> None:
    assert strictly(whole(content=None)).output_text == ""
    assert strictly(whole(content=None)).output[0].type == "message"


@pytest.mark.parametrize("asked", [{"include": ["message.output_text.logprobs"]}, {"top_logprobs": 1}])
def test_logprobs_where_they_are_asked_for(asked: dict[str, Any]) -> None:
    found = strictly(translation(**asked).whole(answer({"content": "a"}, logprobs=LOGPROBS)))
    logprob = found.output[0].content[0].logprobs[0]  # type: ignore[union-attr,index]
    assert (logprob.token, logprob.logprob, logprob.top_logprobs[0].bytes) == ("a", -0.5, [97])
    stream = translation(stream=True, **asked).events(event({"content": "a"}, choice={"logprobs": LOGPROBS}) + DONE)
    (delta,) = [one for one in checked(stream) if one["type"] == "response.output_text.delta"]
    assert delta["logprobs"][0]["top_logprobs"] == [{"token": "a", "logprob": -0.5}]
    unasked = translation().whole(answer({"content": "a"}, logprobs=LOGPROBS))
    assert unasked["output"][0]["content"][0]["logprobs"] == []


PIECES = st.lists(st.text(min_size=1, max_size=4), max_size=4)


@given(PIECES, PIECES, st.lists(PIECES, max_size=3), st.sampled_from(["stop", "length", "tool_calls"]), st.data())
def test_a_stream_in_any_pieces_is_the_whole_answer(
    reasoning: list[str], text: list[str], calls: list[list[str]], finish: str, draw: st.DataObject
) -> None:
    made = [
        {"id": f"c{n}", "type": "function", "function": {"name": f"f{n}", "arguments": "".join(pieces)}}
        for n, pieces in enumerate(calls)
    ]
    message = {"reasoning_content": "".join(reasoning), "content": "".join(text) or None, "tool_calls": made}
    chunks = [event({"role": "assistant", "content": ""})]
    chunks += [event({"reasoning_content": piece}) for piece in reasoning]
    chunks += [event({"content": piece}) for piece in text]
    for n, pieces in enumerate(calls):
        head = {"index": n, "id": f"c{n}", "type": "function", "function": {"name": f"f{n}", "arguments": ""}}
        chunks.append(event({"tool_calls": [head]}))
        chunks += [event({"tool_calls": [{"index": n, "function": {"arguments": piece}}]}) for piece in pieces]
    chunks += [event({}, finish), event(usage=USAGE), DONE]
    places = draw.draw(st.lists(st.integers(0, len(chunks)), max_size=6))
    cuts = [0, *sorted(places), len(chunks)]
    streamed, at_once = translation(stream=True), translation(stream=True)
    stream = b"".join(streamed.events(b"".join(chunks[start:end])) for start, end in pairwise(cuts)) + streamed.end()
    assert stream == at_once.events(b"".join(chunks))
    expected = translation(stream=True).whole(answer(message, finish))
    last = checked(stream)[-1]
    assert last["response"] == decoded(expected)
    assert from_deltas(stream) == [texts_of(item) for item in last["response"]["output"]]
    if finish != "length":
        assert accumulated(stream).output_text == strictly(expected).output_text


def test_calls_by_turns() -> None:
    def turn(index: int, arguments: str, **more: Any) -> bytes:
        return event({"tool_calls": [{"index": index, **more, "function": {"name": "f", "arguments": arguments}}]})

    stream = turn(0, "a", id="x") + turn(1, "b", id="y") + turn(0, "c") + turn(1, "d") + DONE
    final = checked(translation(stream=True).events(stream))[-1]["response"]
    assert [(item["call_id"], item["arguments"]) for item in final["output"]] == [("x", "ac"), ("y", "bd")]


def test_comments_come_through() -> None:
    streamed = translation(stream=True)
    assert streamed.events(b": waiting\n\n") == b": waiting\n\n"
    assert checked(streamed.events(event({"content": "a"})))[0]["type"] == "response.created"


def test_an_error_in_the_stream_fails_the_response() -> None:
    streamed = translation(stream=True)
    error = {"message": "max_completion_tokens is too large", "type": "server_error", "param": None, "code": "x"}
    stream = streamed.events(event({"content": "Hel"})) + streamed.events(data({"error": error})) + streamed.end()
    *_, told, last = checked(stream)
    assert told["type"] == "error" and told["code"] == "x"
    assert told["message"] == "max_output_tokens is too large"
    assert last["type"] == "response.failed" and last["response"]["status"] == "failed"
    assert last["response"]["output"][0]["content"][0]["text"] == "Hel"
    assert streamed.final is None


@pytest.mark.parametrize(
    "given",
    [b"data: 5\n\n", b"data: {\n\n", b"data: " + b"[" * 100_000 + b"\n\n", data({"choices": 5}), data({"choices": [5]}),
     data({"choices": [{"delta": 5, "logprobs": 5}]}), data({"choices": [{"delta": {"content": 5, "tool_calls": 5}}]}),
     data({"choices": [{"delta": {"tool_calls": [5, {"index": "x", "function": 5}]}}], "usage": 5}),
     data({"choices": [{"delta": {"reasoning": 5}, "finish_reason": 5, "logprobs": {"content": [5, {}]}}]}),
     data({"choices": [], "usage": {"prompt_tokens": None, "prompt_tokens_details": 5}})],
)  # fmt: skip
def test_whatever_an_engine_sends_is_answered(given: bytes) -> None:
    streamed = translation(stream=True, include=["message.output_text.logprobs"])
    stream = streamed.events(given) + streamed.events(event({"content": "a"})) + streamed.events(DONE) + streamed.end()
    assert events_of(stream)[-1]["type"] == "response.completed"
    if given.startswith(b'data: {"'):
        translation(include=["message.output_text.logprobs"]).whole(json.loads(given[6:]))


@pytest.mark.parametrize("top", [5, True, "ab", {"a": 1}, ["a", 5, None, ["b"], 0.5]])
def test_alternatives_of_a_token_that_are_none(top: Any) -> None:
    logprobs = {"content": [{"token": "a", "logprob": -0.5, "bytes": None, "top_logprobs": top}]}
    asked: dict[str, Any] = {"include": ["message.output_text.logprobs"]}
    found = translation(**asked).whole(answer({"content": "a"}, logprobs=logprobs))
    assert found["output"][0]["content"][0]["logprobs"][0]["top_logprobs"] == []
    assert b'"delta":"a"' in translation(stream=True, **asked).events(
        event({"content": "a"}, choice={"logprobs": logprobs})
    )
