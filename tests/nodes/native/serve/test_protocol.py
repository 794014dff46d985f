"""Requests that cannot be answered are refused with the field, its value and what is valid."""

import json
import re
from typing import Any

import msgspec
import pytest

from slurminfer.nodes.native.api.errors import ApiError
from slurminfer.nodes.native.api.requests import body
from slurminfer.nodes.native.api.requests.chat import ChatRequest
from slurminfer.nodes.native.api.requests.completions import CompletionRequest
from slurminfer.nodes.native.api.requests.defaults import SamplingDefaults
from slurminfer.nodes.native.api.requests.protocol import parse

OPENAI = SamplingDefaults()
CHAT = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}


def _parse(kind, **fields):
    base = CHAT if kind is ChatRequest else {"model": "m", "prompt": "hi"}
    return parse(kind, json.dumps({**base, **fields}).encode())


@pytest.mark.parametrize("kind", [ChatRequest, CompletionRequest])
@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("max_tokens", -1, "an integer of at least "),
        ("max_tokens", "many", "expected an integer"),
        ("max_tokens", 1.5, "expected an integer"),
        ("temperature", -0.1, "of at least 0"),
        ("temperature", 2.1, "of at most 2"),
        ("temperature", True, "expected a number"),
        ("top_p", 1.1, "of at most 1"),
        ("top_k", -2, "of at least -1"),
        ("min_p", -1, "of at least 0"),
        ("n", 0, "of at least 1"),
        ("n", 129, "of at most 128"),
        ("presence_penalty", 3, "of at most 2"),
        ("frequency_penalty", -3, "of at least -2"),
        ("repetition_penalty", 0, "more than 0"),
        ("seed", "x", "expected an integer"),
        ("stream", "yes", "expected true or false"),
        ("stop", 5, "expected a string or a list"),
        ("stop", [""], "not empty"),
        ("stop[1]", 5, "expected a string"),
        ("stream_options", {"include_usage": True}, "only allowed with stream = true"),
        ("best_of", 129, "an integer of at most 128"),
        ("min_tokens", -1, "an integer of at least 0"),
        ("prompt_logprobs", 21, "an integer of at most 20"),
        ("bad_words[1]", "", "length of at least 1"),
    ],
)
def test_an_invalid_value_is_refused_with_field_value_and_what_is_valid(kind, field, value, expected):
    name, _, index = field.partition("[")
    with pytest.raises(ApiError) as refused:
        _parse(kind, **{name: ["a", value] if index else value})
    assert refused.value.status == 400
    assert refused.value.param == field
    assert expected in refused.value.message
    assert refused.value.message.startswith(field)
    if field != "stream_options":
        assert json.dumps(value)[:20].replace(" ", "") in refused.value.message.replace(" ", "")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("top_logprobs", 3),
        ("logprobs", 3),
        ("messages", []),
        ("messages", "hi"),
        ("max_completion_tokens", 0),
        ("max_tokens", 0),
        ("tools", {}),
        ("tool_choice", "required"),
        ("modalities", ["audio"]),
    ],
)
def test_chat_refuses_what_only_chat_has(field, value):
    with pytest.raises(ApiError) as refused:
        _parse(ChatRequest, **{field: value})
    assert (refused.value.status, refused.value.param) == (400, field)


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("temprature", 0.5, "temprature = 0.5: there is no such field; temperature is probably meant"),
        ("temprature", 0, "temprature = 0: there is no such field; temperature is probably meant"),
        ("maxTokens", 5, "max_tokens is probably meant"),
        ("response_fromat", {"type": "json_object"}, "response_format is probably meant"),
        ("system", "Be brief.", "write it into messages, with the role system"),
        ("previous_response_id", "resp_1", "it is for /v1/responses"),
        ("max_output_tokens", 5, "use max_tokens"),
        ("prompt", "Hi", "only /v1/completions has this field; expected messages"),
        ("reasoning_effort", "huge", "expected one of none, minimal, low, medium, high, xhigh, max"),
    ],
)
def test_habits_of_other_apis_and_typing_errors_are_told_what_to_write(field, value, said):
    with pytest.raises(ApiError) as refused:
        _parse(ChatRequest, **{field: value})
    assert (refused.value.status, refused.value.param) == (400, field)
    assert said in refused.value.message


@pytest.mark.parametrize("field", ["models", "route", "num_ctx", "provider", "tags", "x" * 10_000])
def test_unknown_fields_that_are_like_no_other_are_ignored(field):
    assert _parse(ChatRequest, **{field: "x"}) == _parse(ChatRequest)


def test_a_null_and_a_field_beside_the_right_one_are_no_typing_errors():
    assert _parse(ChatRequest, temprature=None) == _parse(ChatRequest, temprature=False) == _parse(ChatRequest)
    assert _parse(ChatRequest, temprature=1, temperature=0.5).temperature == 0.5


@pytest.mark.parametrize(("field", "value"), [("logprobs", 21), ("logprobs", True), ("max_tokens", 0), ("suffix", "x")])
def test_completions_refuse_what_only_completions_have(field, value):
    with pytest.raises(ApiError) as refused:
        _parse(CompletionRequest, **{field: value})
    assert (refused.value.status, refused.value.param) == (400, field)


@pytest.mark.parametrize("prompt", [[], ["a", 1], [[1], "a"], 5, None, [1.5], [[True]]])
def test_a_prompt_of_no_valid_form_is_refused(prompt):
    with pytest.raises(ApiError) as refused:
        _ = _parse(CompletionRequest, prompt=prompt).prompts
    assert refused.value.param is not None
    assert refused.value.param.startswith("prompt")


@pytest.mark.parametrize(
    ("prompt", "prompts"),
    [("a", ["a"]), (["a", "b"], ["a", "b"]), ([1, 2], [[1, 2]]), ([[1, 2], [3]], [[1, 2], [3]])],
)
def test_all_forms_of_prompts_are_understood(prompt, prompts):
    assert _parse(CompletionRequest, prompt=prompt).prompts == prompts


@pytest.mark.parametrize(
    ("message", "param"),
    [
        ({"content": "x"}, "messages[0].role"),
        ({"role": "robot", "content": "x"}, "messages[0].role"),
        ({"role": "user"}, "messages[0].content"),
        ({"role": "user", "content": 5}, "messages[0].content"),
        ({"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}, "messages[0].content[0]"),
        ({"role": "user", "content": [{"type": "text", "text": "a"}, "b"]}, "messages[0].content[1]"),
    ],
)
def test_a_message_of_no_valid_form_is_refused(message, param):
    with pytest.raises(ApiError) as refused:
        _ = _parse(ChatRequest, messages=[message]).turns
    assert refused.value.param == param


def test_text_parts_are_joined_and_the_rest_of_a_message_is_kept():
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    [turn] = _parse(ChatRequest, messages=[{"role": "user", "content": parts, "name": "Ann"}]).turns
    assert turn == {"role": "user", "content": "ab", "name": "Ann"}


@pytest.mark.parametrize(
    ("body", "said"),
    [(b"", "the body is empty"), (b"{", "not valid JSON"), (b"\xff", "not valid JSON"), (b"[]", "JSON object")],
)
def test_a_body_that_is_no_json_object_is_refused(body, said):
    with pytest.raises(ApiError, match=said):
        parse(ChatRequest, body)


def test_a_missing_field_is_named():
    with pytest.raises(ApiError) as refused:
        parse(ChatRequest, b'{"model": "m"}')
    assert refused.value.param == "messages"


def test_nothing_may_be_generated_where_the_prompt_is_told():
    assert _parse(CompletionRequest, max_tokens=0, echo=True).max_tokens == 0
    assert _parse(CompletionRequest, max_tokens=0, prompt_logprobs=0).max_tokens == 0


@pytest.mark.parametrize(
    ("fields", "param", "said"),
    [
        ({"n": 3, "best_of": 2}, "best_of", "at least n = 3"),
        ({"best_of": 2, "stream": True}, "best_of", "expected n = 1 with stream = true"),
        ({"prompt_logprobs": 1, "stream": True}, "prompt_logprobs", "stream = false"),
        ({"prompt_logprobs": 1, "continue_token_ids": [1]}, "prompt_logprobs", "continue_token_ids"),
        ({"best_of": 2, "continue_token_ids": [[1], []]}, "continue_token_ids", "only allowed with best_of = n = 1"),
    ],
)
@pytest.mark.parametrize("kind", [ChatRequest, CompletionRequest])
def test_fields_that_exclude_each_other_are_refused(kind, fields, param, said):
    with pytest.raises(ApiError, match=re.escape(said)) as refused:
        _parse(kind, **fields)
    assert (refused.value.status, refused.value.param) == (400, param)


def test_as_many_sequences_as_are_ranked_count():
    with pytest.raises(ApiError, match=r"300 prompts x best_of = 5 sequences"):
        _parse(CompletionRequest, prompt=["a"] * 300, n=2, best_of=5)


def test_the_choices_of_a_prompt_share_its_log_probabilities_unless_they_are_streamed():
    def scored(**fields: Any) -> list[int | None]:
        request = _parse(CompletionRequest, n=3, **fields)
        return [
            request.sampling(choice, max_tokens=5, end_ids=frozenset(), defaults=OPENAI).prompt_logprobs
            for choice in range(3)
        ]

    assert scored(logprobs=4) == [None] * 3
    assert scored(echo=True) == [None] * 3
    assert scored(echo=True, logprobs=4) == [4, None, None]
    assert scored(echo=True, logprobs=4, prompt_logprobs=7) == [7, None, None]
    assert scored(echo=True, logprobs=0, stream=True) == [0, 0, 0]


def test_null_and_fields_that_ask_for_nothing_are_the_same_as_absent():
    nothing = {"tools": None, "tool_choice": "auto", "response_format": {"type": "text"}, "logit_bias": {}}
    unknown = {"user": "ann", "metadata": {"a": "b"}, "something_new": 1}
    request = _parse(ChatRequest, temperature=None, n=None, stop=None, **nothing, **unknown)
    params = request.sampling(0, max_tokens=5, end_ids=frozenset([7]), defaults=OPENAI)
    assert (params.temperature, params.top_p, params.top_k, params.seed) == (1.0, 1.0, 0, None)
    assert params.stop_token_ids == {7}


def test_tools_are_fine_where_the_client_forbids_their_use():
    tools = [{"type": "function", "function": {"name": "f"}}]
    assert _parse(ChatRequest, tools=tools, tool_choice="none").toolset.mode == "none"


def test_zero_is_not_mistaken_for_absent():
    params = _parse(ChatRequest, temperature=0, top_p=0, seed=0).sampling(
        2, max_tokens=5, end_ids=frozenset([7]), defaults=OPENAI
    )
    assert (params.temperature, params.top_p, params.seed) == (0, 0, 2)


def test_end_tokens_can_be_ignored_and_others_added():
    request = _parse(ChatRequest, ignore_eos=True, stop_token_ids=[9])
    assert request.sampling(0, max_tokens=5, end_ids=frozenset([7]), defaults=OPENAI).stop_token_ids == {9}


def test_the_new_name_of_max_tokens_wins():
    assert _parse(ChatRequest, max_tokens=5, max_completion_tokens=6).limit == 6
    assert _parse(ChatRequest, max_tokens=5).limit == 5


def _lists(count: int) -> list[list[int]]:
    return [list(range(number, number + 400)) for number in range(count)]


@pytest.mark.parametrize("spaces", [None, 2])
def test_big_bodies_are_decoded_in_pieces_to_the_same(spaces, monkeypatch):
    raw = {"model": "m", "prompt": _lists(200), "n": 2, "user": "ü", "stop": ["a", "b"]}
    encoded = json.dumps(raw, indent=spaces).encode()
    assert len(encoded) > body.BIG_BYTES
    decoded: list[int] = []
    decode = msgspec.json.decode

    def counted(text, **kind):
        decoded.append(len(memoryview(text)))
        return decode(text, **kind)

    monkeypatch.setattr(msgspec.json, "decode", counted)
    request = parse(CompletionRequest, encoded)
    assert (request.prompts, request.n, request.stop) == (raw["prompt"], 2, ["a", "b"])
    assert len(decoded) > 200


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"prompt": [*_lists(300), [1, "x"]]}, "prompt"),
        ({"prompt": [*_lists(300), "x"]}, "prompt = .*: expected a string, a list of strings, a list of token ids"),
        ({"prompt": _lists(300), "n": 1.5}, "n = 1.5: expected"),
    ],
)
def test_what_is_wrong_in_a_big_body_is_named_as_in_a_small_one(changed, said):
    with pytest.raises(ApiError, match=said) as big:
        parse(CompletionRequest, json.dumps({"model": "m", **changed}).encode())
    small = {**changed, "prompt": changed["prompt"][-2:]}
    with pytest.raises(ApiError) as same:
        parse(CompletionRequest, json.dumps({"model": "m", **small}).encode())
    assert big.value.message.rpartition(": ")[2] == same.value.message.rpartition(": ")[2]


@pytest.mark.parametrize("broken", [b"[1,2", b'{"prompt": [[1, 2], [3, }', b'{"prompt": [[1], [nul]]}'])
def test_a_big_body_that_is_no_json_says_where(broken):
    with pytest.raises(ApiError, match="the body is not valid JSON: "):
        body.decode(broken + b" " * body.BIG_BYTES)
