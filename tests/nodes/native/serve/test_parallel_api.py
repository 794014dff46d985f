"""An engine of several processes obeys every field of a request as one process does, of many requests at once."""

import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

pytestmark = [pytest.mark.process, pytest.mark.slow]

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "pattern": "^[a-z]{3,12}$"},
        "places": {"type": "array", "items": {"enum": ["here", "there", 12]}, "minItems": 2, "maxItems": 6},
    },
    "required": ["name", "places"],
    "additionalProperties": False,
}
TOOLS = [{"type": "function", "function": {"name": name, "parameters": SCHEMA}} for name in ("find", "keep")]
ARGUMENTS = r'\{"name": "[a-z]{3,6}", "places": \["here", "there"\]\}'
CALL = rf'<tool_call>\n?\{{"name": "find", "arguments": {ARGUMENTS}\}}</tool_call>'
CHAT = {"messages": [{"role": "user", "content": "Where?"}], "max_tokens": 300, "temperature": 0}
TEXT = {"prompt": "The quick brown fox", "max_tokens": 20, "temperature": 0, "ignore_eos": True}
SAMPLED = {"temperature": 1, "top_p": 0.9, "seed": 3, "n": 2}
FORMAT = {"type": "json_schema", "json_schema": {"name": "place", "schema": SCHEMA, "strict": True}}
# Name -> path and fields.
ASKED: dict[str, tuple[str, Mapping[str, Any]]] = {
    "schema": ("chat/completions", {**CHAT, "response_format": FORMAT}),
    "schema, two choices": ("chat/completions", {**CHAT, **SAMPLED, "response_format": FORMAT}),
    "JSON object": ("chat/completions", {**CHAT, "response_format": {"type": "json_object"}, "max_tokens": 60}),
    "regular expression": ("completions", {**TEXT, "regex": "([a-c]{2,4}-){3}x"}),
    "choice": ("chat/completions", {**CHAT, "structured_outputs": {"choice": ["yes", "no", "perhaps"]}}),
    "forced calls": ("chat/completions", {**CHAT, **SAMPLED, "tools": TOOLS, "tool_choice": "required"}),
    "free calls": ("chat/completions", {**CHAT, "tools": TOOLS, "regex": f"[A-Z]{{4}} {CALL}"}),
    "logit_bias": ("completions", {**TEXT, "logit_bias": {"70": 100, "71": 100, "72": -100}}),
    "bias and rules": ("completions", {
        **TEXT, "logit_bias": {"80": 4.5}, "min_tokens": 5, "bad_words": ["e"],
        "allowed_token_ids": [*range(60, 120)]}),
    "penalties": ("completions", {**TEXT, "repetition_penalty": 1.3, "frequency_penalty": 0.7}),
    "log-probabilities": ("completions", {**TEXT, **SAMPLED, "logprobs": 3}),
    "those of the prompt": ("completions", {**TEXT, "prompt_logprobs": 2, "max_tokens": 2}),
    "echo": ("completions", {**TEXT, "echo": True, "logprobs": 1}),
    "embeddings": ("embeddings", {"input": ["a", "Blocks of keys and values", "word " * 120]}),
}  # fmt: skip
_VARYING = {"id", "created", "prompt_tokens_details"}


def ask(url: str, path: str, fields: Mapping[str, Any]) -> Any:
    answer = httpx.post(f"{url}/v1/{path}", json={"model": "tiny", **fields}, timeout=120)
    assert answer.status_code == 200, answer.text
    return without_varying(answer.json())


def without_varying(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_varying(each) for key, each in value.items() if key not in _VARYING}
    return [without_varying(each) for each in value] if isinstance(value, list) else value


def assert_alike(found: Any, expected: Any, at: str) -> None:
    """Equal, but that sums of several ranks are rounded otherwise."""
    if isinstance(expected, dict):
        assert found.keys() == expected.keys(), at
        for key in expected:
            assert_alike(found[key], expected[key], f"{at}.{key}")
    elif isinstance(expected, list):
        assert len(found) == len(expected), f"{at}: {found} {expected}"
        for index, pair in enumerate(zip(found, expected, strict=True)):
            assert_alike(*pair, f"{at}[{index}]")
    elif isinstance(expected, float):
        assert found == pytest.approx(expected, abs=1e-3), at
    else:
        assert found == expected, at


@pytest.fixture(scope="module")
def of_one_process(server) -> dict[str, Any]:
    found = {name: ask(server.url, *asked) for name, asked in ASKED.items()}
    assert json.loads(found["schema"]["choices"][0]["message"]["content"])["places"]
    for name in ("forced calls", "free calls"):
        assert all(choice["message"]["tool_calls"] for choice in found[name]["choices"]), name
    assert found["those of the prompt"]["choices"][0]["prompt_logprobs"]
    return found


@pytest.mark.parametrize("ranks", ["--tensor-parallel", "--pipeline-parallel"])
def test_two_ranks_answer_as_one(serving, model_directory, of_one_process, ranks):
    model = ("--model", str(model_directory), "--dtype", "float32", "--kv-cache-gib", "0.05")
    with serving(*model, ranks, "2") as two, ThreadPoolExecutor(len(ASKED)) as pool:
        found = dict(zip(ASKED, pool.map(lambda asked: ask(two.url, *asked), ASKED.values()), strict=True))
    for name, expected in of_one_process.items():
        assert_alike(found[name], expected, name)
