"""What a request gets that does not say how to sample."""

import json
import shutil

import httpx
import pytest

from slurminfer.core.errors import CorruptModelError
from slurminfer.nodes.native.api.requests.completions import CompletionRequest
from slurminfer.nodes.native.api.requests.defaults import SamplingDefaults, defaults_of_model
from slurminfer.nodes.native.api.requests.protocol import parse

QWEN = {"do_sample": True, "temperature": 0.7, "top_p": 0.8, "top_k": 20, "repetition_penalty": 1.05}


def _sampling(defaults, **fields):
    request = parse(CompletionRequest, json.dumps({"model": "m", "prompt": "x", **fields}).encode())
    return request.sampling(0, max_tokens=1, end_ids=frozenset(), defaults=defaults)


def test_the_models_values_are_the_defaults_and_a_request_overrides_each(tmp_path):
    (tmp_path / "generation_config.json").write_text(json.dumps(QWEN))
    defaults = defaults_of_model(tmp_path)
    assert defaults == SamplingDefaults(temperature=0.7, top_p=0.8, top_k=20, repetition_penalty=1.05)
    params = _sampling(defaults)
    assert (params.temperature, params.top_p, params.top_k, params.min_p) == (0.7, 0.8, 20, 0.0)
    assert params.repetition_penalty == 1.05
    params = _sampling(defaults, temperature=0, top_p=1, top_k=0, repetition_penalty=1)
    assert (params.temperature, params.top_p, params.top_k, params.repetition_penalty) == (0, 1, 0, 1)
    assert _sampling(defaults, top_k=-1).top_k == 0


@pytest.mark.process
def test_a_chat_ends_where_the_model_says_unless_the_request_does(tmp_path, model_directory, serving):
    shutil.copytree(model_directory, tmp_path / "tiny")
    (tmp_path / "tiny/generation_config.json").write_text('{"max_new_tokens": 5}')
    body = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}], "temperature": 0, "ignore_eos": True}
    with serving("--model", str(tmp_path / "tiny"), "--dtype", "float32", "--kv-cache-gib", "0.05") as server:
        found = [
            httpx.post(f"{server.url}/v1/chat/completions", json={**body, **more}, timeout=60).json()["usage"]
            for more in ({}, {"max_tokens": 9}, {"max_completion_tokens": 2})
        ]
    assert [usage["completion_tokens"] for usage in found] == [5, 9, 2]


def test_without_the_file_they_are_openais(tmp_path):
    assert defaults_of_model(tmp_path) == SamplingDefaults()
    (tmp_path / "generation_config.json").write_text('{"temperature": null, "eos_token_id": 3}')
    assert defaults_of_model(tmp_path) == SamplingDefaults()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", -1),
        ("top_p", 5),
        ("top_k", 1.5),
        ("min_p", "x"),
        ("repetition_penalty", 0),
        ("top_p", True),
        ("max_new_tokens", 0),
    ],
)  # fmt: skip
def test_a_value_that_cannot_be_is_an_error_with_the_way_round_it(tmp_path, name, value):
    (tmp_path / "generation_config.json").write_text(json.dumps({name: value}))
    with pytest.raises(CorruptModelError, match=rf"{name} = .*: expected .*--generation-config none"):
        defaults_of_model(tmp_path)
