"""The OpenAI surface of a real server with a small random model, through the openai client."""

import json
import re
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

pytestmark = pytest.mark.process

CONTEXT = 4096
MESSAGES = [{"role": "user", "content": "Tell me about foxes"}]
GREEDY = {"model": "tiny", "temperature": 0, "max_tokens": 30}


def _complete(client: openai.OpenAI, prompt: Any = "The quick brown fox", **params: Any) -> Any:
    return client.completions.create(**{**GREEDY, "prompt": prompt, **_split(params)})


def _chat(client: openai.OpenAI, messages: Any = MESSAGES, **params: Any) -> Any:
    return client.chat.completions.create(**{**GREEDY, "messages": messages, **_split(params)})


def _split(params: dict[str, Any]) -> dict[str, Any]:
    """What the client does not know goes into extra_body."""
    extra = {"top_k", "min_p", "repetition_penalty", "ignore_eos", "continue_final_message", "add_generation_prompt"}
    body = {name: params.pop(name) for name in extra & params.keys()}
    return {**params, "extra_body": body}


def _post(url: str, path: str, body: Any) -> httpx.Response:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return httpx.post(url + path, content=content, timeout=60)


PARAMS: list[dict[str, Any]] = [
    {},
    {"temperature": 1, "seed": 5},
    {"temperature": 1.5, "seed": 6, "top_p": 0.9, "top_k": 50},
    {"temperature": 1, "seed": 7, "min_p": 0.05, "presence_penalty": 1, "frequency_penalty": 0.5},
    {"repetition_penalty": 1.3},
    {"logprobs": True, "top_logprobs": 3},
    {"stop": ["o", "xyz"], "ignore_eos": True},
    {"n": 3, "temperature": 1, "seed": 8},
]


@pytest.mark.parametrize("params", PARAMS, ids=str)
def test_a_streamed_chat_says_what_the_whole_answer_says(client, params):
    whole = _chat(client, **params)
    said: dict[int, dict[str, Any]] = {}
    for chunk in _chat(client, stream=True, **params):
        for choice in chunk.choices:
            one = said.setdefault(choice.index, {"text": "", "finish": [], "roles": [], "logprobs": []})
            one["text"] += choice.delta.content or ""
            one["roles"] += [choice.delta.role] if choice.delta.role else []
            one["finish"] += [choice.finish_reason] if choice.finish_reason else []
            one["logprobs"] += choice.logprobs.content if choice.logprobs else []
    assert sorted(said) == [choice.index for choice in whole.choices]
    for choice in whole.choices:
        logprobs = choice.logprobs.content if choice.logprobs else []
        assert said[choice.index] == {
            "text": choice.message.content, "finish": [choice.finish_reason], "roles": ["assistant"],
            "logprobs": logprobs,
        }  # fmt: skip


def test_a_streamed_completion_says_what_the_whole_answer_says(client):
    params = {"prompt": ["The quick", "Blocks of"], "logprobs": 2, "n": 2, "temperature": 1, "seed": 3}
    whole = _complete(client, **params)
    chunks: dict[int, list[Any]] = {}
    for chunk in _complete(client, stream=True, **params):
        chunks.setdefault(chunk.choices[0].index, []).append(chunk.choices[0])
    assert [choice.index for choice in whole.choices] == sorted(chunks) == [0, 1, 2, 3]
    for choice in whole.choices:
        parts = chunks[choice.index]
        assert "".join(part.text for part in parts) == choice.text
        assert parts[-1].finish_reason == choice.finish_reason
        for field in ("tokens", "token_logprobs", "text_offset", "top_logprobs"):
            told = [value for part in parts if part.logprobs for value in getattr(part.logprobs, field)]
            assert told == getattr(choice.logprobs, field)


def test_logprobs_tell_the_bytes_of_the_text_and_the_best_alternatives(client):
    [choice] = _chat(client, logprobs=True, top_logprobs=5, max_tokens=10).choices
    entries = choice.logprobs.content
    raw = b"".join(bytes(entry.bytes) for entry in entries)
    assert len(entries) == 10
    assert raw.decode(errors="replace").rstrip("\ufffd") == choice.message.content.rstrip("\ufffd")
    for entry in entries:
        values = [top.logprob for top in entry.top_logprobs]
        assert len(values) == 5
        assert values == sorted(values, reverse=True)
        assert entry.logprob == values[0] < 0  # greedy


def test_a_prompt_may_be_text_or_tokens_one_or_many(client, server, model_directory):
    from slurminfer.nodes.native.tokenizer import Tokenizer

    texts = ["The quick brown fox", "Blocks"]
    ids = [Tokenizer(model_directory).encode(text, add_special_tokens=True) for text in texts]
    alone = [_complete(client, text).choices[0].text for text in texts]
    assert [choice.text for choice in _complete(client, texts).choices] == alone
    assert [choice.text for choice in _complete(client, ids).choices] == alone
    assert _complete(client, ids[1]).choices[0].text == alone[1]


def test_a_seed_repeats_an_answer_and_each_choice_has_its_own(client):
    params = {"temperature": 1.0, "seed": 11}
    three = [choice.message.content for choice in _chat(client, n=3, **params).choices]
    assert len(set(three)) == 3
    assert _chat(client, **params).choices[0].message.content == three[0]
    assert len({_chat(client, temperature=1.0).choices[0].message.content for _ in range(3)}) == 3


def test_a_stop_string_ends_the_answer_before_it(client):
    whole = _complete(client, ignore_eos=True).choices[0].text
    stop = whole[8:11]
    for stream in (False, True):
        answer = _complete(client, stop=stop, ignore_eos=True, stream=stream)
        choices = [chunk.choices[0] for chunk in answer] if stream else answer.choices
        assert "".join(choice.text for choice in choices) == whole[: whole.index(stop)]
        assert (choices[-1].finish_reason, choices[-1].stop_reason) == ("stop", stop)
    chat = _chat(client).choices[0].message.content
    assert _chat(client, stop=["unlikely", chat[2:4]]).choices[0].stop_reason == chat[2:4]


def test_the_end_token_ends_an_answer_unless_ignored(client):
    forced = {"logit_bias": None, "temperature": 2.0, "max_tokens": 400, "n": 8, "seed": 1}
    ended = [choice for choice in _complete(client, **forced).choices if choice.finish_reason == "stop"]
    assert ended and {choice.stop_reason for choice in ended} == {None}
    ignored = _complete(client, ignore_eos=True, **forced)
    assert {choice.finish_reason for choice in ignored.choices} == {"length"}
    assert ignored.usage.completion_tokens == 8 * 400


def test_usage_counts_prompts_once_and_cached_tokens(client):
    prompt = "The quick brown fox jumps over the lazy dog. " * 9
    first = _complete(client, prompt, n=2, ignore_eos=True).usage
    assert first.completion_tokens == 60
    assert first.total_tokens == first.prompt_tokens + 60
    assert first.prompt_tokens_details.cached_tokens == 0
    again = _complete(client, prompt).usage
    assert again.prompt_tokens == first.prompt_tokens
    assert again.prompt_tokens_details.cached_tokens == (first.prompt_tokens - 1) // 16 * 16 > 0


def test_a_stream_ends_with_its_usage_where_asked_for(client):
    chunks = list(_chat(client, stream=True, stream_options={"include_usage": True}, ignore_eos=True))
    assert chunks[-1].choices == []
    assert chunks[-1].usage.completion_tokens == 30
    assert all(chunk.usage is None for chunk in chunks[:-1])
    assert all(chunk.usage is None for chunk in _chat(client, stream=True))


def test_the_defaults_of_max_tokens_are_openais(client):
    answer = client.completions.create(model="tiny", prompt="x", temperature=0, extra_body={"ignore_eos": True})
    assert answer.usage.completion_tokens == 16
    long = [{"role": "user", "content": "word " * 500}]
    answer = client.chat.completions.create(model="tiny", messages=long, extra_body={"ignore_eos": True})
    assert answer.usage.total_tokens == CONTEXT
    assert answer.choices[0].finish_reason == "length"


def test_a_chat_is_its_template_and_a_final_message_can_be_continued(client):
    user = "<|user|>Tell me about foxes<|end|>"
    assert _complete(client, f"{user}<|assistant|>").choices[0].text == _chat(client).choices[0].message.content
    assert (
        _complete(client, user).choices[0].text == _chat(client, add_generation_prompt=False).choices[0].message.content
    )
    messages = [*MESSAGES, {"role": "assistant", "content": "Foxes are "}]
    continued = _chat(client, messages, continue_final_message=True).choices[0].message.content
    assert continued == _complete(client, f"{user}<|assistant|>Foxes are ").choices[0].text


def test_32_mixed_requests_at_once_get_the_answers_that_they_get_alone(client):
    def ask(index: int) -> list[str]:
        params = PARAMS[index % len(PARAMS)]
        content = f"{index} " * (1 + 40 * (index % 3)) + "and foxes"
        answer = _chat(client, [{"role": "user", "content": content}], max_tokens=5 + 3 * index, **params)
        return [choice.message.content for choice in answer.choices]

    alone = [ask(index) for index in range(32)]
    with ThreadPoolExecutor(32) as pool:
        assert list(pool.map(ask, range(32))) == alone


def test_models_are_listed(client):
    [model] = client.models.list().data
    assert (model.id, model.max_model_len) == ("tiny", CONTEXT)
    assert client.models.retrieve("tiny").id == "tiny"


def test_metrics_have_all_their_names(server):
    for name in (
        "running_requests", "waiting_requests", "kv_blocks_used", "kv_blocks_total", "prefix_cache_hit_tokens_total",
        "prompt_tokens_total", "generation_tokens_total", "preemptions_total",
        "time_to_first_token_seconds_count", "inter_token_latency_seconds_count",
    ):  # fmt: skip
        assert server.metric(name) >= 0


def test_metrics_say_what_the_engine_computes_with(server):
    text = httpx.get(f"{server.url}/metrics").text
    [line] = [line for line in text.splitlines() if line.startswith("slurminfer_engine_process_info{")]
    for label in ("threads", "cpus", "cores", "numa_nodes", "openmp", "allocator", "huge_pages"):
        assert re.search(rf'[{{,]{label}="[^"]+"', line), line


def test_an_unknown_model_is_not_found_and_the_served_one_named(client):
    with pytest.raises(openai.NotFoundError, match="'other' does not exist; this server has: 'tiny'") as refused:
        _chat(client, model="other")
    assert refused.value.param == "model"


def test_an_invalid_value_is_a_bad_request_in_openais_shape(client):
    with pytest.raises(openai.BadRequestError) as refused:
        _chat(client, max_tokens=-1)
    assert refused.value.body == {
        "message": "max_tokens = -1: expected an integer of at least 1",
        "type": "invalid_request_error",
        "param": "max_tokens",
        "code": None,
    }


@pytest.mark.parametrize("stream", [False, True])
def test_a_prompt_beyond_the_context_is_refused_with_both_numbers(client, stream):
    with pytest.raises(
        openai.BadRequestError, match=f"context length is {CONTEXT} tokens, but 5000 prompt tokens"
    ) as refused:
        _complete(client, [5] * 5000, stream=stream)
    assert refused.value.code == "context_length_exceeded"
    with pytest.raises(
        openai.BadRequestError, match=rf"context length is {CONTEXT} tokens, but .* max_tokens 4090 = 4100 tokens"
    ):
        _complete(client, [5] * 10, max_tokens=4090, stream=stream)
    with pytest.raises(openai.BadRequestError, match=f"context length is {CONTEXT}"):
        client.chat.completions.create(model="tiny", messages=[{"role": "user", "content": "word " * 5000}])


@pytest.mark.parametrize("prompt", [[320], [-1], [[1], [999]], "", []])
def test_a_prompt_of_no_or_unknown_tokens_is_refused(client, prompt):
    with pytest.raises(openai.BadRequestError) as refused:
        _complete(client, prompt)
    assert refused.value.param == "prompt"


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/v1/chat/completions", b"{nonsense", 400),
        ("POST", "/v1/completions", b"", 400),
        ("POST", "/v1/nonsense", b"{}", 404),
        ("GET", "/v1/completions", None, 405),
        ("GET", "/v1/models/other", None, 404),
    ],
)
def test_every_error_has_openais_shape(server, method, path, body, status):
    answer = httpx.request(method, server.url + path, content=body)
    assert answer.status_code == status
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}


def test_a_client_that_hangs_up_frees_its_blocks_at_once(server, client, wait_until):
    body = {**GREEDY, "messages": MESSAGES, "max_tokens": CONTEXT - 100, "ignore_eos": True, "n": 4}
    request = json.dumps({**body, "stream": True}).encode()
    for stream in (True, False):
        request = json.dumps({**body, "stream": stream}).encode()
        before = server.metric("generation_tokens_total")
        host, port = server.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as connection:
            head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(request)}\r\n\r\n"
            connection.sendall(head.encode() + request)
            wait_until(lambda: server.metric("running_requests") == 4, "the request runs")
            wait_until(lambda b=before: server.metric("generation_tokens_total") > b, "tokens come")
        wait_until(lambda: server.metric("kv_blocks_used") == 0, "the blocks are free")
        assert server.metric("running_requests") == 0
        assert server.metric("generation_tokens_total") - before < 4 * (CONTEXT - 100), "it ran to its end"


def test_a_crowded_cache_preempts_and_still_says_the_same_and_a_key_is_asked_for(
    client: openai.OpenAI, model_directory: Path, serving: Callable[..., AbstractContextManager[Any]]
):
    arguments = ["--model", str(model_directory), "--dtype", "float32", "--kv-cache-gib", "0.0005",
                 "--context-length", "1000", "--max-batch-tokens", "64"]  # fmt: skip

    def ask(client: openai.OpenAI, index: int) -> str:
        content: str = _complete(client, f"{index} foxes", max_tokens=300, ignore_eos=True).choices[0].text
        return content

    alone = [ask(client, index) for index in range(8)]
    with serving(*arguments, env={"SLURMINFER_API_KEY": "right"}) as crowded:
        crowded_client = crowded.client("right")
        with ThreadPoolExecutor(8) as pool:
            assert list(pool.map(lambda index: ask(crowded_client, index), range(8))) == alone
        assert crowded.metric("preemptions_total") > 0
        assert crowded.metric("kv_blocks_used") == 0
        for key in ("wrong", "", "rightt"):
            with pytest.raises(openai.AuthenticationError):
                crowded.client(key or "none").models.list()
        assert httpx.get(f"{crowded.url}/v1/models").status_code == 401
        assert httpx.get(f"{crowded.url}/v1/models").json()["error"]["code"] == "invalid_api_key"
        assert httpx.get(f"{crowded.url}/metrics").status_code == 401
        assert httpx.get(f"{crowded.url}/health").status_code == 200
        for scheme in (b"bearer", b"BEARER"):
            shown = {b"Authorization": scheme + b" right"}
            assert httpx.get(f"{crowded.url}/v1/models", headers=shown).status_code == 200
        assert httpx.get(f"{crowded.url}/v1/models", headers={b"Authorization": b"Bearer \xff"}).status_code == 401
