"""logit_bias, min_tokens, allowed_token_ids, bad_words and best_of of a real server."""

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from slurminfer.nodes.native.tokenizer import Tokenizer

pytestmark = pytest.mark.process

COMPLETION = {"model": "tiny", "prompt": "The quick brown fox", "temperature": 0, "max_tokens": 12, "ignore_eos": True}
CHAT = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}], "temperature": 0, "max_tokens": 12}


@pytest.fixture(scope="session")
def tokenizer(model_directory: Path) -> Tokenizer:
    return Tokenizer(model_directory)


def _post(server: Any, **fields: Any) -> httpx.Response:
    return httpx.post(f"{server.url}/v1/completions", json={**COMPLETION, **fields}, timeout=60)


def _answer(server: Any, **fields: Any) -> Any:
    answer = _post(server, **fields)
    assert answer.status_code == 200, answer.text
    return answer.json()


def _text(server: Any, **fields: Any) -> str:
    return str(_answer(server, **fields)["choices"][0]["text"])


def _refused(server: Any, **fields: Any) -> tuple[str, str]:
    answer = _post(server, **fields)
    assert answer.status_code == 400
    error = answer.json()["error"]
    return error["param"], error["message"]


def test_a_banned_token_never_comes_and_a_forced_one_always(server, tokenizer):
    [x] = tokenizer.encode("x", add_special_tokens=False)
    assert _text(server, logit_bias={str(x): 100}) == "x" * 12
    assert _text(server, logit_bias={str(x): 100}, temperature=2, n=3) == "x" * 12
    plain = _answer(server, logprobs=0)["choices"][0]["logprobs"]["tokens"]
    [first] = tokenizer.encode(plain[0], add_special_tokens=False)
    other = _answer(server, logprobs=0, logit_bias={str(first): -100})["choices"][0]["logprobs"]["tokens"]
    assert plain[0] not in other
    chat = httpx.post(f"{server.url}/v1/chat/completions", json={**CHAT, "logit_bias": {str(x): 100}}, timeout=60)
    assert chat.json()["choices"][0]["message"]["content"] == "x" * 12


def test_neighbours_of_one_batch_each_have_their_own_rules(server, tokenizer):
    plain = _text(server)
    bodies = [{"logit_bias": {str(id): 100}} for id in tokenizer.encode("xyz", add_special_tokens=False)]
    assert [_text(server, **body) for body in bodies] == ["x" * 12, "y" * 12, "z" * 12]
    assert _text(server, prompt=[COMPLETION["prompt"], "other"]) == plain


def test_only_allowed_tokens_come(server, tokenizer):
    ids = tokenizer.encode("xyz", add_special_tokens=False)
    assert set(_text(server, allowed_token_ids=ids, temperature=2, seed=1, max_tokens=60)) == set("xyz")


def test_a_word_that_is_banned_does_not_come(server):
    plain = _answer(server, max_tokens=40, logprobs=0)["choices"][0]
    tokens = plain["logprobs"]["tokens"]
    word = next(token for token in tokens if token.strip().isalpha())
    assert word not in _answer(server, max_tokens=40, logprobs=0, bad_words=[word])["choices"][0]["logprobs"]["tokens"]


def test_an_answer_has_the_least_length_whatever_ends_it(server, tokenizer):
    [end] = tokenizer.encode("<|end|>", add_special_tokens=False)
    wants_to_end = {"logit_bias": {str(end): 50}, "ignore_eos": False}
    assert _answer(server, **wants_to_end)["usage"]["completion_tokens"] == 1
    for name in ("min_tokens", "min_new_tokens"):
        answer = _answer(server, **wants_to_end, **{name: 5})
        assert answer["usage"]["completion_tokens"] == 6
        assert answer["choices"][0]["finish_reason"] == "stop"
    [x] = tokenizer.encode("x", add_special_tokens=False)
    forced = {"logit_bias": {str(x): 100}}
    assert _text(server, **forced, stop="x") == ""
    assert _text(server, **forced, stop="x", min_tokens=4) == "xxxx"
    assert _text(server, **forced, stop_token_ids=[x + 1], min_tokens=4) == "x" * 12


@pytest.mark.parametrize(
    ("fields", "param", "said"),
    [
        ({"logit_bias": {"320": 1}}, "logit_bias", '"320": expected token ids from 0 to 319'),
        ({"logit_bias": {"-1": 1}}, "logit_bias", "expected token ids"),
        ({"logit_bias": {"x": 1}}, "logit_bias", "expected token ids"),
        ({"logit_bias": {"²": 1}}, "logit_bias", "expected token ids"),
        ({"logit_bias": {"5": 101}}, "logit_bias.5", "= 101"),
        ({"logit_bias": {"5": -100.5}}, "logit_bias.5", "expected -100 to 100"),
        ({"logit_bias": {str(id): -100 for id in range(320)}}, "logit_bias", "no token is left"),
        ({"logit_bias": [5]}, "logit_bias", "expected an object"),
        ({"allowed_token_ids": [320]}, "allowed_token_ids", "expected 0 to 319"),
        ({"allowed_token_ids": []}, "allowed_token_ids", "no token is left"),
        ({"allowed_token_ids": [5], "logit_bias": {"5": -100}}, "allowed_token_ids", "no token is left"),
        ({"allowed_token_ids": [1], "min_tokens": 2}, "allowed_token_ids", "min_tokens = 2"),
        ({"min_tokens": 13}, "min_tokens", "at most max_tokens = 12"),
        ({"min_new_tokens": 13}, "min_new_tokens", "at most max_tokens = 12"),
        ({"bad_words": ["x" * 129]}, "bad_words[0]", "length of at most 128"),
        ({"allowed_token_ids": [5] * 70_000}, "allowed_token_ids", "length of at most 65536"),
    ],
)
def test_what_cannot_be_is_refused_by_name(server, fields, param, said):
    named, message = _refused(server, **fields)
    assert (named, said in message) == (param, True), message


def test_the_best_are_those_with_the_highest_logprob_of_a_token(server):
    fields = {"temperature": 1, "seed": 3, "max_tokens": 6}
    every = _answer(server, n=8, logprobs=0, **fields)
    means = [sum(c["logprobs"]["token_logprobs"]) / 6 for c in every["choices"]]
    ranked = sorted(range(8), key=lambda index: -means[index])
    best = _answer(server, n=3, best_of=8, **fields)
    assert [choice["index"] for choice in best["choices"]] == [0, 1, 2]
    assert [choice["text"] for choice in best["choices"]] == [every["choices"][i]["text"] for i in ranked[:3]]
    assert [choice["logprobs"] for choice in best["choices"]] == [None] * 3
    assert best["usage"]["completion_tokens"] == 48
    assert best["usage"]["prompt_tokens"] == every["usage"]["prompt_tokens"]
    told = _answer(server, n=1, best_of=8, logprobs=0, **fields)["choices"][0]
    assert told["logprobs"] == every["choices"][ranked[0]]["logprobs"]


def test_each_prompt_has_its_own_best(server):
    fields = {"temperature": 1, "seed": 3, "max_tokens": 6, "best_of": 4, "n": 2, "echo": True, "logprobs": 1}
    both = _answer(server, prompt=["The fox", "Blocks"], **fields)["choices"]
    single = [_answer(server, prompt=prompt, **fields)["choices"] for prompt in ("The fox", "Blocks")]
    assert [choice["text"] for choice in both] == [choice["text"] for choices in single for choice in choices]
    assert [choice["text"][:6] for choice in both] == ["The fo", "The fo", "Blocks", "Blocks"]
    assert all(choice["logprobs"]["token_logprobs"][0] is None for choice in both)


def test_tokens_can_be_told_as_ids(server, tokenizer):
    ids = tokenizer.encode(str(COMPLETION["prompt"]), add_special_tokens=False)
    body = {"echo": True, "logprobs": 2, "return_tokens_as_token_ids": True}
    logprobs = _answer(server, **body)["choices"][0]["logprobs"]
    assert logprobs["tokens"][: len(ids)] == [f"token_id:{id}" for id in ids]
    assert all(name.startswith("token_id:") for top in logprobs["top_logprobs"][1:] for name in top)
    assert logprobs["text_offset"] == _answer(server, echo=True, logprobs=2)["choices"][0]["logprobs"]["text_offset"]
    chat = {**CHAT, "logprobs": True, "return_tokens_as_token_ids": True}
    told = httpx.post(f"{server.url}/v1/chat/completions", json=chat, timeout=60).json()["choices"][0]["logprobs"]
    assert all(entry["token"].startswith("token_id:") for entry in told["content"])


@pytest.mark.parametrize("stream", [False, True])
def test_the_tokens_of_prompts_and_answers_are_told(server, tokenizer, stream):
    [end] = tokenizer.encode("<|end|>", add_special_tokens=False)
    fields = {"return_token_ids": True, "n": 2, "prompt": ["The fox", "Blocks"], "min_tokens": 3, "ignore_eos": False,
              "logit_bias": {str(end): 50}, "stream": stream}  # fmt: skip
    text = _post(server, **fields).text
    events = [json.loads(line[6:]) for line in text.split("\n\n") if line.startswith("data: {")] if stream else [
        json.loads(text)
    ]  # fmt: skip
    choices = [choice for event in events for choice in event["choices"]]
    for index in range(4):
        mine = [choice for choice in choices if choice["index"] == index]
        prompt = tokenizer.encode(["The fox", "Blocks"][index // 2], add_special_tokens=True)
        assert [choice["prompt_token_ids"] for choice in mine if "prompt_token_ids" in choice] == [prompt]
        ids = [id for choice in mine for id in choice["token_ids"]]
        assert (len(ids), ids[-1]) == (4, end)
        assert tokenizer.decode(ids) == "".join(choice["text"] for choice in mine)
    chat = httpx.post(f"{server.url}/v1/chat/completions", json={**CHAT, "return_token_ids": True}, timeout=60).json()
    assert len(chat["prompt_token_ids"]) == chat["usage"]["prompt_tokens"]
    assert len(chat["choices"][0]["token_ids"]) == chat["usage"]["completion_tokens"]
