"""Where an answer is taken up, and what is asked of engines for it."""

import json
from typing import Any

import pytest

from slurminfer.router.relay.stream.envelope import read_envelope
from slurminfer.router.relay.stream.events import without_token_ids
from slurminfer.router.relay.stream.place import Repeated
from slurminfer.router.relay.stream.resume import Continuation, Finished, prepare

from .streams import COMPLETIONS, continuation

MESSAGES = [{"role": "user", "content": "Say"}]


def asked(how: Any) -> dict[str, Any]:
    assert isinstance(how, Continuation), how
    body: dict[str, Any] = json.loads(how.body)
    return body


def delta(content: str, **fields: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": {"content": content}, **fields}]}


def text(text: str, **fields: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "text": text, **fields}]}


@pytest.mark.parametrize(("engine", "field"), [("vllm", "return_token_ids"), ("native", "stream_token_ids")])
def test_token_ids_are_asked_for(engine: str, field: str) -> None:
    body = b'{"model":"m","stream":true,"prompt":"a"}'
    assert json.loads(prepare(body, read_envelope(COMPLETIONS, "", body), engine))[field] is True
    own = b'{"model":"m","stream":true,"prompt":"a","%b":false}' % field.encode()
    assert json.loads(prepare(own, read_envelope(COMPLETIONS, "", own), engine))[field] is False


def test_sglang_is_not_asked_for_what_it_does_not_know() -> None:
    body = b'{"model":"m","stream":true,"prompt":"a"}'
    assert b"token_ids" not in prepare(body, read_envelope(COMPLETIONS, "", body), "sglang")


@pytest.mark.parametrize(
    "event",
    [
        b'{"choices":[{"index":0,"text":"a","prompt_token_ids":[1,2],"token_ids":[3]}]}',
        b'{"choices":[{"index":0,"delta":{}}],"prompt_token_ids":[1,2],"prompt_text":null}',
        b'{"choices":[{"index":0,"text":"a","prompt_token_ids":null,"token_ids":[3]}]}',
    ],
)
def test_ids_of_both_kinds_are_taken_out(event: bytes) -> None:
    assert b"[1" not in without_token_ids(event) and b"[3" not in without_token_ids(event)
    json.loads(without_token_ids(event))


def test_ids_without_an_end_are_left_as_they_are() -> None:
    assert without_token_ids(b'data: ,"prompt_token_ids":[1\n\n') == b'data: ,"prompt_token_ids":[1\n\n'


def test_a_sampled_completion_goes_on_by_ids_only_at_its_end() -> None:
    first = text("one", token_ids=[7], prompt_token_ids=[1, 2])
    assert asked(continuation({"prompt": "a"}, first))["prompt"] == [1, 2, 7]
    stop = {"prompt": "a", "stop": ["12345"]}
    late = [text("", token_ids=[7], prompt_token_ids=[1, 2]), text("on", token_ids=[8]), text("e two", token_ids=[9])]
    assert asked(continuation(stop, *late))["prompt"] == "aone two"
    assert asked(continuation({**stop, "temperature": 0}, *late))["prompt"] == [1, 2, 7, 8]


def test_a_sampled_message_has_no_space_at_its_end() -> None:
    body = asked(continuation({"messages": MESSAGES, "max_tokens": 9}, delta("one"), delta("\n\n")))
    assert body["messages"][-1]["content"] == "one"
    assert body["max_tokens"] == 8
    again = asked(continuation({"messages": MESSAGES, "max_tokens": 9}, delta("\n")))
    assert (again["messages"], again["max_tokens"]) == (MESSAGES, 9)


def test_text_without_spaces_goes_on_at_its_end() -> None:
    words = [delta("字符") for _ in range(50)]
    assert (
        asked(continuation({"messages": MESSAGES, "temperature": 0}, *words))["messages"][-1]["content"] == "字符" * 50
    )


def test_half_a_character_at_the_end_of_an_event_is_not_gone_on_from() -> None:
    sent = [text("字", token_ids=[5], prompt_token_ids=[1]), text("符", token_ids=[6, 7])]
    assert asked(continuation({"prompt": "a", "temperature": 0}, *sent))["prompt"] == [1, 5]


def test_native_is_not_told_ids_whose_text_vllm_held_back() -> None:
    sent = text("one", token_ids=[7, 8], prompt_token_ids=[1, 2])
    assert asked(continuation({"prompt": "a"}, sent, engine="native"))["continue_token_ids"] == [7, 8]
    assert "continue_token_ids" not in asked(continuation({"prompt": "a", "stop": ["12"]}, sent, engine="native"))


def test_usage_of_a_whole_answer_needs_no_other_worker() -> None:
    body = {"prompt": "a", "stream_options": {"include_usage": True}}
    how = continuation(body, text("one", token_ids=[7, 8], prompt_token_ids=[1, 2, 3], finish_reason="stop"))
    assert isinstance(how, Finished)
    assert b'"usage":{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5}' in how.events


def test_repeated_text_is_taken_out_until_the_answers_part() -> None:
    same = Repeated(" two three")
    assert [same.take_from(piece) for piece in (" two", " thr", "ee four", " two")] == ["", "", " four", " two"]
    other = Repeated(" two three")
    assert [other.take_from(piece) for piece in (" two", " turns", " three")] == ["", "urns", " three"]
