"""Answers with a million numbers: what they take beside what is sent."""

import json
import tracemalloc

import msgspec
import pytest

from slurminfer.nodes.native.api.answers.formats import encoded
from slurminfer.nodes.native.api.answers.prompt_logprobs import prompt_logprobs_json
from slurminfer.nodes.native.engine.request import Request, SamplingParams
from slurminfer.nodes.native.tokenizer import Tokenizer


def test_log_probabilities_of_prompts_take_about_the_memory_of_their_text(model_directory):
    tokenizer = Tokenizer(model_directory)
    request = Request("a", [5] * 2000, SamplingParams(max_tokens=1, prompt_logprobs=20))
    found = request.prompt_logprobs
    assert found is not None
    for _ in range(1999):
        found._chosen.append(-1.5)
        found._ranks.append(25)
        found._ids.extend(range(20))
        found._values.extend([-0.5] * 20)
    tracemalloc.start()
    try:
        told = bytes(msgspec.json.encode(prompt_logprobs_json(tokenizer, request, 20)))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 4 * len(told)  # as objects, they take twelve times as much
    first, second, *_ = json.loads(told)
    assert first is None
    assert second["5"] == {
        "logprob": pytest.approx(-1.5),
        "rank": 25,
        "decoded_token": tokenizer.token_bytes(5).decode(),
    }
    assert len(second) == 20
    assert len(json.loads(told)) == 2000


def test_each_choice_of_an_answer_is_encoded_by_itself():
    choices = [{"index": index, "text": "a" * index} for index in range(3)]
    answer = encoded({"id": "x", "choices": list(choices)})
    assert all(isinstance(choice, msgspec.Raw) for choice in answer["choices"])
    assert json.loads(msgspec.json.encode(answer)) == {"id": "x", "choices": choices}
