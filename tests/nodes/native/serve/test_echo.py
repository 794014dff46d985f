"""Prompts in front of their answers, with the log-probabilities that transformers computes."""

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch

from slurminfer.nodes.native.api.answers.echo import Echo, echoed_text, text_offsets
from slurminfer.nodes.native.tokenizer import Tokenizer

TEXT = "The quick brown fox, こんにちは 🎉 jumps over the lazy dog."
TOLERANCE = 1e-3

pytestmark = pytest.mark.process


@pytest.fixture(scope="session")
def tokenizer(model_directory: Path) -> Tokenizer:
    return Tokenizer(model_directory)


@pytest.fixture(scope="session")
def reference(model_directory: Path) -> Any:
    """Computes log-probabilities [len(ids), vocab] of what follows each token, by transformers in float32."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(model_directory, dtype=torch.float32)

    def compute(ids: list[int]) -> torch.Tensor:
        with torch.inference_mode():
            return model(torch.tensor([ids])).logits[0].log_softmax(-1)

    return compute


def _post(server: Any, **fields: Any) -> httpx.Response:
    body = {"model": "tiny", "prompt": TEXT, "temperature": 0, "max_tokens": 4, "echo": True, "ignore_eos": True}
    return httpx.post(f"{server.url}/v1/completions", json={**body, **fields}, timeout=60)


def _choices(server: Any, **fields: Any) -> Any:
    answer = _post(server, **fields)
    assert answer.status_code == 200, answer.text
    return answer.json()["choices"]


def _streamed(server: Any, **fields: Any) -> dict[int, dict[str, Any]]:
    """The choices of a stream, put together."""
    found: dict[int, dict[str, Any]] = {}
    for line in _post(server, stream=True, **fields).text.split("\n\n"):
        if not line.startswith("data: {"):
            continue
        for choice in json.loads(line[6:])["choices"]:
            kept = found.setdefault(choice["index"], {"text": "", "logprobs": {}})
            kept["text"] += choice["text"]
            kept["finish_reason"] = choice["finish_reason"]
            for name, values in (choice["logprobs"] or {}).items():
                kept["logprobs"].setdefault(name, []).extend(values)
    return found


def _assert_logprobs_are(expected: torch.Tensor, ids: list[int], logprobs: Any, prompt: int) -> None:
    assert logprobs["token_logprobs"][0] is None
    assert logprobs["top_logprobs"][0] is None
    for place in range(1, len(ids)):
        row = expected[place - 1]
        chosen, top = logprobs["token_logprobs"][place], logprobs["top_logprobs"][place]
        assert chosen == pytest.approx(row[ids[place]].item(), abs=TOLERANCE)
        assert max(top.values()) == pytest.approx(row.max().item(), abs=TOLERANCE)
        assert (chosen == max(top.values())) == (int(row.argmax()) == ids[place])  # as lm-eval tells greedy ones


@pytest.mark.parametrize("max_tokens", [0, 1, 4])
@pytest.mark.parametrize("as_ids", [False, True])
@pytest.mark.parametrize("stream", [False, True])
def test_every_token_of_prompt_and_answer_has_transformers_logprob(
    server, tokenizer, reference, max_tokens, as_ids, stream
):
    prompt = tokenizer.encode(TEXT, add_special_tokens=False)
    fields = {"prompt": prompt if as_ids else TEXT, "max_tokens": max_tokens, "logprobs": 2}
    choice = _streamed(server, **fields)[0] if stream else _choices(server, **fields)[0]
    logprobs = choice["logprobs"]
    ids = prompt
    for _ in range(max_tokens):
        ids = [*ids, int(reference(ids)[-1].argmax())]
    assert {name: len(values) for name, values in logprobs.items()} == dict.fromkeys(logprobs, len(ids))
    assert choice["text"].startswith(TEXT)
    assert choice["finish_reason"] == "length"
    assert (choice["text"] == TEXT) == (max_tokens == 0)
    _assert_logprobs_are(reference(ids), ids, logprobs, len(prompt))
    for name, offset in zip(logprobs["tokens"], logprobs["text_offset"], strict=True):
        assert name.startswith("bytes:") or choice["text"][offset:].startswith(name)


def test_long_prompts_in_company_are_cut_and_still_exact(server, reference):
    prompts = [[(index * 7 + number) % 300 + 5 for index in range(1500)] for number in range(3)]
    for choice, ids in zip(_choices(server, prompt=prompts, max_tokens=0, logprobs=1), prompts, strict=True):
        _assert_logprobs_are(reference(ids), ids, choice["logprobs"], len(ids))


def test_the_prefix_cache_changes_nothing(server):
    first = _choices(server, max_tokens=1, logprobs=1)
    _choices(server, max_tokens=3)
    assert _choices(server, max_tokens=1, logprobs=1) == first


def test_without_logprobs_there_is_the_text_alone(server, tokenizer):
    ids = tokenizer.encode(TEXT, add_special_tokens=False)
    for fields in ({}, {"prompt": ids}, {"prompt": [ids]}, {"prompt": [TEXT]}):
        [choice] = _choices(server, **fields)
        assert choice["text"].startswith(TEXT)
        assert choice["logprobs"] is None
        [nothing] = _choices(server, max_tokens=0, **fields)
        assert (nothing["text"], nothing["finish_reason"]) == (TEXT, "length")
        assert _streamed(server, **fields)[0]["text"] == choice["text"]


def test_each_of_several_choices_has_the_prompt(server):
    fields = {"prompt": ["The fox", "Blocks"], "n": 2, "temperature": 1, "seed": 4, "logprobs": 1}
    whole, streamed = _choices(server, **fields), _streamed(server, **fields)
    assert [choice["text"][:6] for choice in whole] == ["The fo", "The fo", "Blocks", "Blocks"]
    for choice in whole:
        assert choice["logprobs"]["token_logprobs"][0] is None
        assert streamed[choice["index"]] == {name: choice[name] for name in ("text", "logprobs", "finish_reason")}
    assert whole[0]["logprobs"]["token_logprobs"][:2] == whole[1]["logprobs"]["token_logprobs"][:2]


def test_zero_alternatives_are_null(server):
    [choice] = _choices(server, logprobs=0)
    assert choice["logprobs"]["top_logprobs"] is None
    assert None not in choice["logprobs"]["token_logprobs"][1:]


def test_an_end_token_has_an_entry_like_any_other(server, tokenizer):
    """lm-eval takes the last entry for the one token that it lets the model generate."""
    [end] = tokenizer.encode("<|end|>", add_special_tokens=False)
    body = {"logit_bias": {str(end): 100}, "ignore_eos": False, "logprobs": 1, "max_tokens": 1}
    [choice] = _choices(server, **body)
    assert choice["finish_reason"] == "stop"
    assert choice["text"] == TEXT
    assert choice["logprobs"]["tokens"][-1] == "<|end|>"
    assert choice["logprobs"]["text_offset"][-1] == len(TEXT)
    assert len(choice["logprobs"]["tokens"]) == len(tokenizer.encode(TEXT, add_special_tokens=False)) + 1


def test_prompt_logprobs_have_vllms_form(server, tokenizer, reference):
    ids = tokenizer.encode(TEXT, add_special_tokens=False)
    expected = reference(ids)
    [choice] = _choices(server, prompt_logprobs=2, echo=False)
    found = choice["prompt_logprobs"]
    assert found[0] is None
    assert len(found) == len(ids)
    for place in range(1, len(ids)):
        row, own = expected[place - 1], found[place][str(ids[place])]
        assert own["logprob"] == pytest.approx(row[ids[place]].item(), abs=TOLERANCE)
        assert own["rank"] == int((row > row[ids[place]]).sum()) + 1
        assert {entry["rank"] for entry in found[place].values()} == {1, 2, own["rank"]}
    chat = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 1, "prompt_logprobs": 0}
    answer = httpx.post(f"{server.url}/v1/chat/completions", json=chat, timeout=60).json()
    assert answer["prompt_logprobs"][0] is None
    assert len(answer["prompt_logprobs"]) == answer["usage"]["prompt_tokens"]
    assert all(len(entry) == 1 for entry in answer["prompt_logprobs"][1:])


def test_more_logprobs_than_an_answer_may_have_are_refused_before_anything_is_computed(server):
    for more in ({}, {"stream": True}):
        refused = _post(server, prompt=[[5] * 3000] * 16, logprobs=20, max_tokens=0, **more)
        assert refused.status_code == 400
        assert refused.json()["error"]["param"] == "logprobs"
        assert "the prompts have 1008000 log-probabilities" in refused.json()["error"]["message"]


@pytest.mark.parametrize("text", ["", " a", "こんにちは 🎉", "<|user|>hi<|end|>", "a\n\n b"])
def test_offsets_are_where_tokens_begin(tokenizer, text):
    ids = tokenizer.encode(text, add_special_tokens=False)
    offsets = text_offsets(tokenizer, Echo(text, ids))
    raw, place = text.encode(), 0
    for token, offset in zip(ids, offsets, strict=True):
        assert offset == len(raw[:place].decode(errors="ignore"))  # of the character that it is a part of
        place += len(tokenizer.token_bytes(token))


def test_a_token_that_is_not_in_the_text_begins_where_the_next_one_does(tokenizer):
    ids = tokenizer.encode("hi there", add_special_tokens=False)
    plain = text_offsets(tokenizer, Echo("hi there", ids))
    assert text_offsets(tokenizer, Echo("hi there", [0, *ids])) == [0, *plain]


def test_ids_are_told_as_text_with_special_tokens_or_without(tokenizer):
    ids = tokenizer.encode("<|user|>hi 🎉", add_special_tokens=False)
    assert echoed_text(tokenizer, ids, special=False) == "hi 🎉"
    assert echoed_text(tokenizer, ids, special=True) == "<|user|>hi 🎉"
    assert echoed_text(tokenizer, ids[:-1], special=True) == "<|user|>hi "  # the answer completes the character
