"""What the HTTP surface of a real server looks like to clients: paths, ids, encodings, errors, fields."""

import gzip
import json
import zlib
from typing import Any

import httpx
import pytest
from openai import BaseModel
from openai.types import Completion
from openai.types.chat import ChatCompletion, ChatCompletionChunk

pytestmark = pytest.mark.process

COMPLETION = {"model": "tiny", "prompt": "The quick brown fox", "temperature": 0, "max_tokens": 12, "ignore_eos": True}
CHAT = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}], "temperature": 0, "max_tokens": 4}


def _complete(server: Any, **fields: Any) -> Any:
    answer = httpx.post(f"{server.url}/v1/completions", json={**COMPLETION, **fields}, timeout=60)
    assert answer.status_code == 200, answer.text
    return answer.json()["choices"][0]


def _error(answer: httpx.Response) -> Any:
    assert answer.headers["Content-Type"] == "application/json"
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert len(error["message"]) < 500
    return error


def test_the_models_card_is_what_clients_read(server, model_directory):
    [card] = httpx.get(f"{server.url}/v1/models").json()["data"]
    assert card.pop("created") == int((model_directory / "config.json").stat().st_mtime)
    assert card == {"id": "tiny", "object": "model", "owned_by": "slurminfer", "root": "tiny", "parent": None,
                    "max_model_len": 4096}  # fmt: skip


@pytest.mark.parametrize(
    ("method", "path", "status", "said"),
    [
        ("GET", "/v1/nonsense", 404, "/tokenizer_info, /v1/chat/completions, /v1/completions"),
        ("POST", "/v1/rerank", 404, "no such path"),
        ("GET", "/" + "x" * 5000, 404, "..."),
        ("GET", "/%ff%00", 404, "no such path"),
        ("POST", "/chat/completions", 404, "; /v1/chat/completions is probably meant"),
        (
            "POST",
            "/v1/chat/completion",
            404,
            "/v1/chat/completion: no such path; /v1/chat/completions is probably meant",
        ),
        ("POST", "//v1/completions/", 404, "; /v1/completions is probably meant"),
        ("GET", "/v1/chat/completions", 405, "expected POST"),
        ("DELETE", "/v1/models", 405, "expected GET or HEAD"),
        ("GET", "/v1/models/" + "y" * 5000, 404, "does not exist"),
    ],
)
def test_wrong_paths_and_methods_are_told_in_openais_shape(server, method, path, status, said):
    answer = httpx.request(method, server.url + path)
    assert answer.status_code == status
    assert said in _error(answer)["message"]
    assert ("Allow" in answer.headers) == (status == 405)


@pytest.mark.parametrize("given", ["abc-123", "req_" + "x" * 124])
def test_a_requests_id_comes_back(server, given):
    for path in ("/health", "/v1/models", "/nonsense"):
        assert httpx.get(server.url + path, headers={"X-Request-Id": given}).headers["X-Request-Id"] == given


@pytest.mark.parametrize("given", [None, "", "x" * 129, "a b", "é"])
def test_a_request_without_a_usable_id_gets_one(server, given):
    headers = {} if given is None else {b"X-Request-Id": given.encode()}
    ids = {httpx.get(f"{server.url}/health", headers=headers).headers["X-Request-Id"] for _ in range(2)}
    assert len(ids) == 2
    assert all(len(id) == 32 for id in ids)


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_a_compressed_body_is_read(server, encoding):
    raw = json.dumps(COMPLETION).encode()
    compressed = gzip.compress(raw) if encoding == "gzip" else zlib.compress(raw)
    url, headers = f"{server.url}/v1/completions", {"Content-Encoding": encoding}
    assert httpx.post(url, content=compressed, headers=headers, timeout=60).status_code == 200
    for wrong, status in ((b"abcd", 400), (compressed[:-9], 400), (raw, 400)):
        answer = httpx.post(url, content=wrong, headers=headers)
        assert answer.status_code == status
        assert encoding in _error(answer)["message"]


def test_a_body_that_grows_beyond_the_bound_is_refused(server):
    bomb = gzip.compress(bytes(64 * 2**20), compresslevel=1)
    url = f"{server.url}/v1/completions"
    answer = httpx.post(url, content=bomb, headers={"Content-Encoding": "gzip"}, timeout=60)
    assert (answer.status_code, "at most 16777216 bytes" in _error(answer)["message"]) == (413, True)
    answer = httpx.post(url, content=b"x", headers={"Content-Encoding": "br"})
    assert (answer.status_code, "gzip, deflate" in _error(answer)["message"]) == (415, True)


@pytest.mark.parametrize("body", [b'{"model":' * 100_000, b'{"model":"\xff"}', b"\xff\xfe", b'{"a":"\\ud800"}'])
@pytest.mark.parametrize("path", ["/v1/completions", "/v1/chat/completions"])
def test_a_body_that_is_not_json_is_the_clients_error(server, path, body):
    answer = httpx.post(server.url + path, content=body)
    assert (answer.status_code, _error(answer)["type"]) == (400, "invalid_request_error")


def test_what_must_be_refused_cheaply_is(server):
    too_much = [
        {**COMPLETION, "stop": ["x" * 10_000] * 100},
        {**COMPLETION, "prompt": ["a"] * 300, "n": 128},
        {**COMPLETION, "stop_token_ids": [320]},
        {**CHAT, "messages": [{"role": "user", "content": ""}] * 200_000},
    ]
    for body in too_much:
        path = "/v1/chat/completions" if "messages" in body else "/v1/completions"
        answer = httpx.post(server.url + path, json=body, timeout=60)
        assert answer.status_code == 400
        _error(answer)


def test_a_prompt_that_is_too_long_is_told_in_openais_words(server):
    words = "This model's maximum context length is 4096 tokens"
    for path, body, param in (
        ("/v1/completions", {**COMPLETION, "prompt": [5] * 5000}, "prompt"),
        ("/v1/completions", {**COMPLETION, "max_tokens": 10**6}, "prompt"),
        ("/v1/completions", {**COMPLETION, "prompt": "x" * 10**6}, "prompt"),
        ("/v1/chat/completions", {**CHAT, "messages": [{"role": "user", "content": "x" * 10**6}]}, "messages"),
    ):
        error = _error(httpx.post(server.url + path, json=body, timeout=60))
        assert error["message"].startswith(words)
        assert error["message"].count(words) == 1
        assert (error["code"], error["param"]) == ("context_length_exceeded", param)


def test_a_stop_string_can_be_part_of_the_text(server):
    whole = _complete(server)["text"]
    stop = whole[4:6]
    until = whole.index(stop)
    assert _complete(server, stop=stop)["text"] == whole[:until]
    for name in ("include_stop_str_in_output", "no_stop_trim"):
        choice = _complete(server, stop=[stop, "unlikely"], **{name: True})
        assert (choice["text"], choice["finish_reason"]) == (whole[: until + len(stop)], "stop")


def test_every_chunk_can_have_its_token_counts(server):
    body = {**COMPLETION, "stream": True, "stream_options": {"include_usage": True, "continuous_usage_stats": True}}
    answer = httpx.post(f"{server.url}/v1/completions", json=body, timeout=60)
    assert answer.headers["Content-Type"] == "text/event-stream; charset=utf-8"
    chunks = [json.loads(line[6:]) for line in answer.text.split("\n\n") if line.startswith("data: {")]
    counts = [chunk["usage"]["completion_tokens"] for chunk in chunks]
    assert counts == sorted(counts)
    assert (counts[0], counts[-1]) == (1, 12)
    assert chunks[-1]["choices"] == []


def test_a_templates_variables_are_the_clients(server):
    """This template has no variables, and takes them without a word as transformers does."""
    fields = {"chat_template_kwargs": {"enable_thinking": False}}
    plain, more = (
        httpx.post(f"{server.url}/v1/chat/completions", json={**CHAT, **extra}, timeout=60).json()["choices"]
        for extra in ({}, fields)
    )
    assert plain == more
    answer = httpx.post(f"{server.url}/v1/chat/completions", json={**CHAT, "chat_template_kwargs": {"messages": []}})
    assert _error(answer)["param"] == "chat_template_kwargs.messages"


def _events(server: Any, path: str, body: dict[str, Any]) -> list[Any]:
    answer = httpx.post(server.url + path, json={**body, "stream": True}, timeout=60)
    return [json.loads(line[6:]) for line in answer.text.split("\n\n") if line.startswith("data: {")]


def test_answers_are_what_openais_client_declares(server):
    """By its types, which it does not check itself: no field is missing, of another type or unknown."""
    chat = {**CHAT, "logprobs": True, "top_logprobs": 2}
    completion = {**COMPLETION, "logprobs": 2}
    found: list[tuple[type[BaseModel], Any]] = [
        (ChatCompletion, httpx.post(f"{server.url}/v1/chat/completions", json=chat, timeout=60).json()),
        (Completion, httpx.post(f"{server.url}/v1/completions", json=completion, timeout=60).json()),
        *((ChatCompletionChunk, event) for event in _events(server, "/v1/chat/completions", chat)),
        *((Completion, event) for event in _events(server, "/v1/completions", completion)),
    ]
    assert len(found) > 10
    for kind, answer in found:
        for choice in answer["choices"] if kind is Completion else ():
            choice["finish_reason"] = choice["finish_reason"] or "stop"  # null in OpenAI's own events, not in the type
        parsed: Any = kind.model_validate(answer)
        assert not parsed.model_extra, parsed.model_extra
        for choice in parsed.choices:
            assert set(choice.model_extra or ()) <= {"stop_reason"}
            assert choice.logprobs is None or not choice.logprobs.model_extra
    logprobs = found[0][1]["choices"][0]["logprobs"]
    assert (set(logprobs), logprobs["refusal"]) == ({"content", "refusal"}, None)


def test_what_openais_clients_send_by_themselves_is_never_refused(server):
    usual = {
        "store": False, "metadata": {"a": "b"}, "user": "ann", "service_tier": "auto", "prompt_cache_key": "k",
        "safety_identifier": "s", "verbosity": "low", "prediction": {"type": "content", "content": "x"},
        "modalities": ["text"],
        "prompt_cache_retention": "24h", "prompt_cache_options": {},
        "stream": True, "stream_options": {"include_usage": True, "include_obfuscation": False},
    }  # fmt: skip
    for path, body in (("/v1/chat/completions", CHAT), ("/v1/completions", COMPLETION)):
        answer = httpx.post(server.url + path, json={**body, **usual}, timeout=60)
        assert answer.status_code == 200, answer.text
