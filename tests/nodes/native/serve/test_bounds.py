"""Everything in a request has a bound, and an error that names it."""

import json
from typing import Any

import pytest

from slurminfer.nodes.native.api.errors import ApiError, short
from slurminfer.nodes.native.api.requests.body import decode
from slurminfer.nodes.native.api.requests.chat import ChatRequest
from slurminfer.nodes.native.api.requests.completions import CompletionRequest
from slurminfer.nodes.native.api.requests.defaults import SamplingDefaults
from slurminfer.nodes.native.api.requests.messages import turns
from slurminfer.nodes.native.api.requests.protocol import parse, require_stop_ids

MESSAGE = {"role": "user", "content": "hi"}


def _chat(**fields: Any) -> ChatRequest:
    return parse(ChatRequest, json.dumps({"model": "m", "messages": [MESSAGE], **fields}).encode())


def _completion(**fields: Any) -> CompletionRequest:
    return parse(CompletionRequest, json.dumps({"model": "m", "prompt": "hi", **fields}).encode())


def _nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = {"a": value}
    return value


@pytest.mark.parametrize(
    ("fields", "param", "said"),
    [
        ({"stop": ["x"] * 65}, "stop", "with a length of at most 64"),
        ({"stop": "x" * 1025}, "stop", "with a length of at most 1024"),
        ({"stop": ["a", "x" * 1025]}, "stop[1]", "with a length of at most 1024"),
        ({"stop_token_ids": list(range(1025))}, "stop_token_ids", "with a length of at most 1024"),
        ({"max_tokens": 2**31}, "max_tokens", "at most 2147483647"),
        ({"max_tokens": 2**70}, "max_tokens", ""),
        ({"seed": 2**63}, "seed", "at most 9223372036854775807"),
        ({"seed": -(2**63) - 1}, "seed", ""),
        ({"n": 2**64}, "n", ""),
        ({"top_k": -2}, "top_k", "at least -1"),
        ({"chat_template_kwargs": dict.fromkeys(map(str, range(65)))}, "chat_template_kwargs", "at most 64 in 65536"),
        ({"chat_template_kwargs": {"a": "x" * 65536}}, "chat_template_kwargs", "at most 64 in 65536"),
        ({"chat_template_kwargs": _nested(70)}, "chat_template_kwargs", "at most 64 levels"),
        ({"chat_template_kwargs": {"messages": []}}, "chat_template_kwargs.messages", "reserved"),
        ({"chat_template_kwargs": {"eos_token": ""}}, "chat_template_kwargs.eos_token", "reserved"),
        ({"chat_template_kwargs": {"add_generation_prompt": 0}}, "chat_template_kwargs.add_generation_prompt", ""),
        ({"something": _nested(70)}, '"something"', "at most 64 levels"),
        ({"x" * 1000: _nested(70)}, "x" * 80, "at most 64 levels"),
    ],
)
def test_what_is_beyond_a_bound_is_refused_by_name_with_a_short_message(fields, param, said):
    with pytest.raises(ApiError) as refused:
        _chat(**fields)
    assert refused.value.status == 400
    assert refused.value.param == param.strip('"')
    assert said in refused.value.message
    assert len(refused.value.message) < 300


def test_what_is_within_is_taken():
    body = _chat(stop=["x" * 1024] * 64, stop_token_ids=[1] * 1024, max_tokens=2**31 - 1, seed=-(2**63))
    assert len(body.stops) == 64
    assert _chat(chat_template_kwargs={"enable_thinking": False}).variables == {"enable_thinking": False}


def test_too_many_prompts_times_n_are_refused_with_both_numbers():
    with pytest.raises(ApiError, match="300 prompts x n = 128 sequences: expected at most 1024 in all") as refused:
        _completion(prompt=["a"] * 300, n=128)
    assert refused.value.param == "prompt"
    assert len(_completion(prompt=["a"] * 8, n=128).prompts) == 8


def test_messages_and_their_parts_are_counted():
    with pytest.raises(ApiError, match="messages has 4097 entries: expected at most 4096"):
        turns([MESSAGE] * 4097)
    assert len(turns([MESSAGE] * 4096)) == 4096
    part = {"type": "text", "text": ""}
    with pytest.raises(ApiError, match="20000 parts in all: expected at most 16384"):
        turns([{"role": "user", "content": [part] * 10_000}] * 2)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b'{"messages":[' + b'{"role":"user","content":""},' * 200_000 + b"{}]}", "200003 objects and lists"),
        (b'{"prompt":[' + b"1," * 2_000_001 + b"1]}", "2000001 values"),
        (b"{" + b",".join(b'"%d":1' % key for key in range(500_001)) + b"}", "500001 keys"),
        (b'{"a":' + b"[" * 100_000, "nested too deep"),
        (b'{"a":' * 100_000, "nested too deep"),
        (b'{"a":' + b"9" * 5000 + b"}", "not valid JSON"),
        (b'{"a":1e999}', "not valid JSON"),
        (b'{"a":NaN}', "not valid JSON"),
        (b'{"a":"\xff"}', "not valid JSON"),
        (b'{"\xff":1}', "not valid JSON"),
        (b'{"a":"\\ud800"}', "not valid JSON"),
        (b"\xef\xbb\xbf", "not valid JSON"),
        (b"", "the body is empty"),
        (b"[" * 50 + b"]" * 50, "expected a JSON object"),
    ],
)
def test_a_body_that_cannot_be_is_refused(body, said):
    with pytest.raises(ApiError) as refused:
        decode(body)
    assert refused.value.status == 400
    assert said in refused.value.message
    assert len(refused.value.message) < 300


def test_nesting_is_counted():
    assert decode(json.dumps({"a": _nested(64)}).encode()) == {"a": _nested(64)}
    with pytest.raises(ApiError, match="at most 64 levels"):
        decode(json.dumps({"a": _nested(65)}).encode())


def test_stop_tokens_are_tokens_of_the_model():
    require_stop_ids([0, 319], 320)
    for wrong in (-1, 320, 2**63, 10**400):
        with pytest.raises(ApiError, match=r"stop_token_ids: token id .*: expected 0 to 319") as refused:
            require_stop_ids([5, wrong], 320)
        assert len(refused.value.message) < 200


@pytest.mark.parametrize("top_k", [0, -1, 2**31, 2**63, 2**80])
def test_a_huge_top_k_is_all_tokens(top_k):
    assert _params(_chat(top_k=top_k)).top_k == 0


def test_whole_floats_are_integers_and_an_empty_stop_is_none():
    body = _chat(max_tokens=10.0, top_k=40.0, n=2.0, seed=3.0, stop="", logprobs=True, top_logprobs=2.0)
    assert (body.max_tokens, body.n, body.seed, body.stops, body.top_logprobs) == (10, 2, 3, [], 2)
    assert _params(body).top_k == 40
    for wrong in (10.5, "10"):
        with pytest.raises(ApiError):
            _chat(max_tokens=wrong)


def test_an_error_shows_a_long_value_shortened():
    assert short("x" * 10**7) == '"' + "x" * 76 + "..."
    assert len(short([["x" * 1000] * 100] * 1000)) == 80


def _params(body: ChatRequest) -> Any:
    return body.sampling(0, max_tokens=1, end_ids=frozenset(), defaults=SamplingDefaults())
