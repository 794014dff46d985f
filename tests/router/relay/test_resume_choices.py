"""Answers of several choices that go on at slurminfer's engine: each from its own tokens, if it is not finished."""

import json
from typing import Any

import pytest

from slurminfer.router.relay.stream.envelope import read_envelope
from slurminfer.router.relay.stream.resume import Continuation, Finished, Impossible, missing_end
from slurminfer.router.relay.stream.transcript import Transcript

from .streams import COMPLETIONS, continuation

MESSAGES = [{"role": "user", "content": "Say"}]
CHAT = {"messages": MESSAGES, "n": 3, "temperature": 1, "seed": 4}
TEXT = {"prompt": ["a", "b"], "n": 2}
USAGE = {"stream_options": {"include_usage": True}}


def said(index: int, *ids: int, finish: str | None = None, **delta: Any) -> dict[str, Any]:
    choice = {"index": index, "delta": delta, "finish_reason": finish, "token_ids": list(ids)}
    return {"choices": [choice]}


def text(index: int, text: str, *ids: int, finish: str | None = None) -> dict[str, Any]:
    return {"choices": [{"index": index, "text": text, "finish_reason": finish, "token_ids": list(ids)}]}


def asked(how: Any) -> dict[str, Any]:
    assert isinstance(how, Continuation), how
    body: dict[str, Any] = json.loads(how.body)
    return body


def fed(how: Continuation, *events: dict[str, Any]) -> list[dict[str, Any]]:
    """What the client gets of events of the second worker."""
    assert how.stitcher is not None
    data = b"".join(b"data: " + json.dumps({"id": "2", **event}).encode() + b"\n\n" for event in events)
    return [json.loads(one.removeprefix(b"data: ")) for one in how.stitcher.feed(data).split(b"\n\n") if one]


def test_each_choice_goes_on_from_its_tokens() -> None:
    events = [said(0, 5, role="assistant", content=""), said(2, 8, 9, role="assistant", content="x"),
              said(0, 6, content="y"), said(2, 3, finish="stop")]  # fmt: skip
    body = asked(continuation(CHAT, *events, engine="native"))
    assert body["continue_token_ids"] == [[5, 6], [], [8, 9, 3]]
    assert body["finished_choices"] == [2]
    assert {name: body[name] for name in CHAT} == CHAT
    assert body["stream_token_ids"] is True and body["stream_options"]["include_usage"] is True


def test_choices_of_several_prompts_are_in_the_order_of_their_indexes() -> None:
    events = [text(3, "x", 9), text(1, "y", 7, 8)]
    assert asked(continuation(TEXT, *events, engine="native"))["continue_token_ids"] == [[], [7, 8], [], [9]]
    ids = {"prompt": [[1, 2], [3]], "best_of": 1}
    assert asked(continuation(ids, text(1, "x", 9), engine="native"))["continue_token_ids"] == [[], [9]]


def test_best_of_that_is_n_is_no_more_than_n() -> None:
    body = asked(continuation({"prompt": "a", "n": 2, "best_of": 2}, text(1, "x", 9), engine="native"))
    assert body["continue_token_ids"] == [[], [9]]


def test_reasoning_and_calls_go_on() -> None:
    call: dict[str, Any] = {"tool_calls": [{"index": 0, "id": "c", "function": {"name": "f", "arguments": ""}}]}
    more = {"tools": [{"type": "function"}], "tool_choice": "required", "response_format": {"type": "json_object"}}
    events = [said(0, 5, role="assistant", reasoning_content="hm"), said(1, 6, **call)]
    assert asked(continuation({**CHAT, **more}, *events, engine="native"))["continue_token_ids"] == [[5], [6], []]


def test_prompt_ids_that_the_client_has_asked_for_are_no_sign_of_vllm() -> None:
    ours = {"prompt_token_ids": [1], "system_fingerprint": "slurminfer-0.1.0"}
    asked_for = {**CHAT, "return_token_ids": True, "stop": "xy"}
    event = {**said(0, 5, role="assistant", reasoning_content="hm"), **ours}
    assert asked(continuation(asked_for, event, engine="native"))["continue_token_ids"] == [[5], [], []]
    alone = {**asked_for, "n": 1}
    assert asked(continuation(alone, event, engine="native"))["continue_token_ids"] == [5]
    assert isinstance(continuation(alone, {**event, "system_fingerprint": None}, engine="native"), Impossible)


def test_a_second_loss_goes_on_from_the_tokens_of_both_workers() -> None:
    first = [said(0, 5, role="assistant", content="a"), said(1, 6, role="assistant", content="b")]
    how = continuation(CHAT, *first, engine="native")
    second = fed(how, said(1, 7, content="c", finish="length"), said(2, 8, role="assistant", content="d"))
    assert {event["id"] for event in second} == {"1"}
    body = asked(continuation(CHAT, *first, *second, engine="native"))
    assert body["continue_token_ids"] == [[5], [6, 7], [8]]
    assert body["finished_choices"] == [1]


def test_a_role_and_the_ids_of_a_prompt_are_told_once_for_each_choice() -> None:
    how = continuation(CHAT, said(0, role="assistant", content=""), said(0, 5, content="a"), engine="native")
    again = {**said(0, 6, role="assistant", content="b"), "prompt_token_ids": [1]}
    new = {**said(1, 7, role="assistant", content=""), "prompt_token_ids": [1]}
    first, second = fed(how, again, new)
    assert first["choices"][0]["delta"] == {"content": "b"} and "prompt_token_ids" not in first
    assert second["choices"][0]["delta"]["role"] == "assistant" and second["prompt_token_ids"] == [1]
    how = continuation(TEXT, text(0, "a", 5), engine="native")
    pieces = [text(index, "b", 6) for index in (0, 1)]
    for piece in pieces:
        piece["choices"][0]["prompt_token_ids"] = [1]
    assert ["prompt_token_ids" in event["choices"][0] for event in fed(how, *pieces)] == [False, True]


def test_token_counts_are_left_to_the_engine() -> None:
    how = continuation({**CHAT, **USAGE}, said(0, 5, content="a"), engine="native")
    counts = {"prompt_tokens": 3, "completion_tokens": 9, "total_tokens": 12}
    assert fed(how, {"choices": [], "usage": counts})[0]["usage"] == counts


@pytest.mark.parametrize("engine", ["native", "vllm", "sglang"])
def test_when_all_choices_are_finished_the_stream_ends(engine: str) -> None:
    events = [said(index, 5, content="a", finish="stop") for index in range(3)]
    assert continuation(CHAT, *events, engine=engine) == Finished(b"data: [DONE]\n\n")
    counted = {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 3, "total_tokens": 6}}
    assert continuation({**CHAT, **USAGE}, *events, counted, engine=engine) == Finished(b"data: [DONE]\n\n")


def test_when_all_choices_are_finished_the_engine_is_asked_for_the_token_counts() -> None:
    events = [said(index, 5, content="a", finish="stop") for index in range(3)]
    body = asked(continuation({**CHAT, **USAGE}, *events, engine="native"))
    assert (body["continue_token_ids"], body["finished_choices"]) == ([[5], [5], [5]], [0, 1, 2])
    assert isinstance(continuation({**CHAT, **USAGE}, *events, engine="vllm"), Impossible)


@pytest.mark.parametrize(
    ("body", "events"),
    [
        (CHAT, [said(0, 5, content="a"), {"choices": [{"index": 1, "delta": {"content": "b"}}]}]),  # without ids
        (CHAT, [said(3, 5, content="a")]),  # no choice of it
        ({**CHAT, "n": 1}, [said(0, 5, content="a"), said(1, 5, content="a")]),
        ({**CHAT, "n": None, "best_of": 10**12}, [said(0, 5, content="a")]),  # which vLLM takes without a word
        ({**CHAT, "stop": "xy"}, [{**said(0, 5, content="a"), "prompt_token_ids": [1]}]),  # vLLM holds text back
        (CHAT, [{**said(0, 5, reasoning_content="a"), "prompt_token_ids": [1]}]),
        ({**TEXT, "continue_token_ids": [[1], [], [], []]}, [text(0, "x", 5)]),
    ],
)  # fmt: skip
def test_what_the_engine_cannot_go_on_with(body: dict[str, Any], events: list[dict[str, Any]]) -> None:
    how = continuation(body, *events, engine="native")
    assert isinstance(how, Impossible) and "cannot be continued" in how.reason


def test_the_counts_of_one_choice_are_not_told_as_those_of_all() -> None:
    body = b'{"model":"m","stream":true,"prompt":"a","n":2,"stream_options":{"include_usage":true}}'
    transcript = Transcript()
    for index in range(2):
        event = {**text(index, "x", 5, finish="stop"), "usage": {"prompt_tokens": 1, "completion_tokens": 1}}
        transcript.add(b"data: " + json.dumps(event).encode() + b"\n\n")
    assert missing_end(read_envelope(COMPLETIONS, "", body), transcript) == b"data: [DONE]\n\n"


def test_the_tokens_of_one_finished_choice_are_counted_without_generating_more() -> None:
    body = asked(continuation({"prompt": "a", **USAGE}, text(0, "x", 5, 6, finish="stop"), engine="native"))
    assert (body["continue_token_ids"], body["finished_choices"]) == ([[5, 6]], [0])
    assert "max_tokens" not in body
