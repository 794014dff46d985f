"""The real demo model: words, not noise."""

import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import openai
import pytest

from slurminfer.quant.models import resolve

pytestmark = pytest.mark.process

QUESTION = [{"role": "user", "content": "What is the capital of France?"}]


@pytest.fixture(scope="module")
def demo(serving: Callable[..., AbstractContextManager[Any]]) -> Iterator[openai.OpenAI]:
    options = ["--dtype", "float32", "--context-length", "2048", "--kv-cache-gib", "0.5"]
    with serving("--model", str(resolve("demo")), "--served-model-name", "demo", *options) as server:
        yield server.client()


def _ask(client: openai.OpenAI, messages: Any = QUESTION, **params: Any) -> Any:
    return client.chat.completions.create(model="demo", messages=messages, temperature=0, **params)


@pytest.mark.network
def test_it_answers_and_ends_by_itself(demo):
    [choice] = _ask(demo).choices
    assert "Paris" in choice.message.content
    assert choice.finish_reason == "stop"
    assert not choice.message.content.endswith("<|im_end|>")


@pytest.mark.network
def test_an_answer_cut_off_anywhere_goes_on_as_it_would_have(demo):
    pieces = [chunk.choices[0].delta.content or "" for chunk in _ask(demo, stream=True)]
    for cut in (1, len(pieces) // 2):
        begun = [*QUESTION, {"role": "assistant", "content": "".join(pieces[:cut])}]
        rest = _ask(demo, begun, extra_body={"continue_final_message": True}).choices[0].message.content
        assert rest == "".join(pieces[cut:])


@pytest.mark.network
@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "get_weather"}}])
def test_it_calls_a_tool_where_it_must(demo, choice):
    city = {"type": "string", "maxLength": 20}
    parameters = {"type": "object", "properties": {"city": city}, "required": ["city"]}
    tools = [{"type": "function", "function": {"name": "get_weather", "parameters": parameters}}]
    question = [{"role": "user", "content": "How is the weather in Paris?"}]
    asked = {"tools": tools, "tool_choice": choice, "parallel_tool_calls": False}
    [answer] = _ask(demo, question, **asked).choices
    [call] = answer.message.tool_calls
    assert (answer.finish_reason, answer.message.content) == ("tool_calls", None)
    assert (call.function.name, "Paris" in json.loads(call.function.arguments)["city"]) == ("get_weather", True)
    told = [chunk.choices[0].delta.tool_calls or [] for chunk in _ask(demo, question, stream=True, **asked)]
    deltas = [delta for deltas in told for delta in deltas]
    assert "".join(delta.function.arguments for delta in deltas) == call.function.arguments
    assert [(delta.id, delta.function.name) for delta in deltas if delta.id] == [(call.id, "get_weather")]
