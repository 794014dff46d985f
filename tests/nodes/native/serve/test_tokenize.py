"""Texts and chats to tokens and back, as vLLM does, without the model."""

from pathlib import Path
from typing import Any

import httpx
import pytest

from slurminfer.nodes.native.tokenizer import Tokenizer

pytestmark = pytest.mark.process

TEXT = "The quick brown fox, こんにちは 🎉"
MESSAGES = [{"role": "user", "content": "hi"}]


@pytest.fixture(scope="session")
def tokenizer(model_directory: Path) -> Tokenizer:
    return Tokenizer(model_directory)


def _post(server: Any, path: str, **body: Any) -> Any:
    answer = httpx.post(f"{server.url}{path}", json=body, timeout=60)
    return answer.json() if answer.status_code == 200 else (answer.status_code, answer.json()["error"])


@pytest.mark.parametrize("base", ["", "/v1"])
def test_a_text_becomes_tokens_and_these_the_text(server, tokenizer, base):
    ids = tokenizer.encode(TEXT, add_special_tokens=True)
    found = _post(server, f"{base}/tokenize", model="tiny", prompt=TEXT)
    assert found == {"count": len(ids), "max_model_len": 4096, "tokens": ids, "token_strs": None}
    assert _post(server, f"{base}/tokenize", prompt=TEXT, add_special_tokens=False)["tokens"] == ids
    assert _post(server, f"{base}/detokenize", model="tiny", tokens=ids) == {"prompt": TEXT}


def test_tokens_are_told_as_the_vocabulary_writes_them(server):
    found = _post(server, "/tokenize", model="tiny", prompt="a b", return_token_strs=True)
    assert found["token_strs"] == ["a", "Ġb"]


def test_a_chat_becomes_the_prompt_that_is_computed_for_it(server):
    found = _post(server, "/tokenize", model="tiny", messages=MESSAGES, return_token_strs=True)
    assert found["token_strs"][0] == "<|user|>"
    chat = _post(server, "/v1/chat/completions", model="tiny", messages=MESSAGES, max_tokens=1)
    assert found["count"] == chat["usage"]["prompt_tokens"]
    open_ = _post(server, "/tokenize", model="tiny", messages=MESSAGES, add_generation_prompt=False)
    assert _post(server, "/detokenize", tokens=found["tokens"])["prompt"] == "<|user|>hi<|end|><|assistant|>"
    assert _post(server, "/detokenize", tokens=open_["tokens"])["prompt"] == "<|user|>hi<|end|>"
    assert _post(server, "/tokenize", messages=MESSAGES)["tokens"] == found["tokens"]


@pytest.mark.parametrize(
    ("path", "body", "status", "param", "said"),
    [
        ("/tokenize", {}, 400, "prompt", "missing"),
        ("/tokenize", {"prompt": 5}, 400, "prompt", "expected a string"),
        ("/tokenize", {"prompt": "a", "messages": MESSAGES}, 400, "prompt", "exclude each other"),
        ("/tokenize", {"prompt": "a", "model": "other"}, 404, "model", "does not exist"),
        ("/tokenize", {"messages": [{"role": "nobody"}]}, 400, "messages[0].role", "expected one of"),
        (
            "/tokenize",
            {"messages": MESSAGES, "return_token_strs": 5},
            400,
            "return_token_strs",
            "expected true or false",
        ),
        ("/tokenize", {"prompt": "x" * 10**6}, 400, "prompt", "maximum context length is 4096"),
        ("/detokenize", {}, 400, "tokens", "missing"),
        ("/detokenize", {"tokens": [320]}, 400, "tokens", "expected 0 to 319"),
        ("/detokenize", {"tokens": [-1]}, 400, "tokens", "expected 0 to 319"),
        ("/detokenize", {"tokens": ["a"]}, 400, "tokens[0]", "expected an integer"),
        ("/detokenize", {"tokens": [5] * 5000}, 400, "tokens", "expected at most 4096"),
        ("/detokenize", {"tokens": [5], "model": "other"}, 404, "model", "does not exist"),
    ],
)
def test_what_cannot_be_is_refused(server, path, body, status, param, said):
    found, error = _post(server, path, **body)
    assert (found, error["param"], said in error["message"]) == (status, param, True), error


def test_clients_can_read_what_the_tokenizer_is(server):
    info = httpx.get(f"{server.url}/tokenizer_info").json()
    assert (info["bos_token"], info["eos_token"]) == ("<|bos|>", "<|end|>")
    assert "message.role" in info["chat_template"]
