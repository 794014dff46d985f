"""Tools and thinking through OpenAI's client, by a model of random weights: its grammar makes calls of what it says."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema_rs
import openai
import pytest

from ....support.chat_model import write_chat_model

pytestmark = pytest.mark.process

PARAMETERS: dict[str, Any] = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 8}, "unit": {"enum": ["C", "F"]}},
    "required": ["city", "unit"],
}
TOOLS: Any = [
    {"type": "function", "function": {"name": "get_weather", "parameters": PARAMETERS}},
    {"type": "function", "function": {"name": "ping"}},
]
SCHEMAS: dict[str, dict[str, Any]] = {"get_weather": PARAMETERS, "ping": {"maxProperties": 0}}
NAMED: Any = {"type": "function", "function": {"name": "get_weather"}}
QUESTION: Any = [{"role": "user", "content": "Weather?"}]
THINKING = """\
{%- for message in messages %}{{ '<|' + message.role + '|>' + message.content + '<|end|>' }}{% endfor %}
{%- if add_generation_prompt %}{{ '<|assistant|><think>' }}
    {%- if enable_thinking is defined and not enable_thinking %}{{ '</think>' }}{% endif %}
{%- endif %}"""


@pytest.fixture(scope="module")
def thinker(tmp_path_factory: pytest.TempPathFactory, serving) -> Iterator[openai.OpenAI]:
    """A model whose template opens the tag of its thinking."""
    directory: Path = tmp_path_factory.mktemp("models") / "thinker"
    write_chat_model(directory)
    (directory / "chat_template.jinja").write_text(THINKING)
    with serving("--model", str(directory), "--dtype", "float32", "--kv-cache-gib", "0.05") as running:
        yield running.client()


def _ask(client: openai.OpenAI, **params: Any) -> Any:
    name = client.models.list().data[0].id
    return client.chat.completions.create(model=name, messages=QUESTION, max_tokens=1500, **params)


def _check(message: Any, *, most: int) -> None:
    assert message.content is None
    assert 1 <= len(message.tool_calls) <= most
    for call in message.tool_calls:
        jsonschema_rs.validate(SCHEMAS[call.function.name], json.loads(call.function.arguments))
    assert len({call.id for call in message.tool_calls}) == len(message.tool_calls)


@pytest.mark.parametrize(("choice", "parallel"), [("required", True), ("required", False), (NAMED, True)])
@pytest.mark.parametrize("seed", [1, 2])
def test_calls_are_forced_whole_and_streamed(client, choice, parallel, seed):
    params = {"tools": TOOLS, "tool_choice": choice, "parallel_tool_calls": parallel, "seed": seed}
    [whole] = _ask(client, **params).choices
    assert whole.finish_reason == "tool_calls"
    _check(whole.message, most=16 if parallel and choice == "required" else 1)
    with client.chat.completions.stream(
        model=client.models.list().data[0].id, messages=QUESTION, max_tokens=1500, **params
    ) as stream:
        for event in stream:
            assert event.type != "content.delta" or not event.delta
        [streamed] = stream.get_final_completion().choices
    assert streamed.finish_reason == "tool_calls"
    told = [(call.id, call.function.name, call.function.arguments) for call in streamed.message.tool_calls or []]
    assert told == [(call.id, call.function.name, call.function.arguments) for call in whole.message.tool_calls]


def test_without_a_call_an_answer_is_text(client):
    [choice] = _ask(client, tools=TOOLS, tool_choice="none").choices
    assert choice.message.tool_calls is None
    assert isinstance(choice.message.content, str)


def test_a_call_and_its_result_can_be_sent_back(client):
    message = _ask(client, tools=TOOLS, tool_choice=NAMED, seed=1).choices[0].message
    result = {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": "18 C"}
    name = client.models.list().data[0].id
    answer = client.chat.completions.create(
        model=name, messages=[*QUESTION, message, result], tools=TOOLS, max_tokens=5
    )
    first = client.chat.completions.create(model=name, messages=QUESTION, tools=TOOLS, max_tokens=5)
    assert answer.usage.prompt_tokens > first.usage.prompt_tokens + 20


def test_a_schema_that_cannot_be_compiled_matters_for_strict_functions_only(client):
    odd = {"type": "object", "properties": {"a": {"type": "string", "pattern": "(?<=x)y"}}}
    loose: Any = [{"type": "function", "function": {"name": "f", "parameters": odd}}]
    strict: Any = [{"type": "function", "function": {"name": "f", "parameters": odd, "strict": True}}]
    good = {"name": "good", "parameters": {"type": "object"}, "strict": True}
    with pytest.raises(openai.BadRequestError, match='tools: function "f": at /properties/a: ') as refused:
        _ask(client, tools=[{"type": "function", "function": good}, *strict], tool_choice="required")
    assert refused.value.param == "tools"
    [choice] = _ask(client, tools=loose, tool_choice="required", parallel_tool_calls=False, seed=1).choices
    assert choice.message.tool_calls[0].function.name == "f"


def test_what_is_forced_follows_the_thinking(thinker):
    [choice] = _ask(thinker, tools=TOOLS, tool_choice=NAMED, extra_body={
        "chat_template_kwargs": {"enable_thinking": False}}).choices  # fmt: skip
    _check(choice.message, most=1)
    [choice] = _ask(thinker, stop=["</"]).choices
    assert choice.message.content is None
    assert choice.message.reasoning_content


def test_thinking_is_told_apart(thinker):
    answer = _ask(thinker, seed=1)
    [choice] = answer.choices
    assert (choice.message.content, bool(choice.message.reasoning_content)) == (None, True)
    assert answer.usage.completion_tokens_details.reasoning_tokens > 0
    two = _ask(thinker, seed=1, n=2)
    counted = two.usage.completion_tokens_details.reasoning_tokens
    assert answer.usage.completion_tokens_details.reasoning_tokens <= counted <= two.usage.completion_tokens
    last = list(_ask(thinker, seed=1, n=2, stream=True, stream_options={"include_usage": True}))[-1]
    assert last.usage.completion_tokens_details.reasoning_tokens == counted
    deltas = [chunk.choices[0].delta for chunk in _ask(thinker, seed=1, stream=True)]
    assert "".join(getattr(d, "reasoning_content", None) or "" for d in deltas) == choice.message.reasoning_content
    assert "".join(delta.content or "" for delta in deltas) == ""


def test_thinking_can_be_left_in_the_text_or_out_of_the_answer(thinker):
    told = _ask(thinker, seed=1).choices[0].message.reasoning_content
    text = _ask(thinker, seed=1, extra_body={"separate_reasoning": False}).choices[0].message.content
    assert text.strip() == told
    hidden = _ask(thinker, seed=1, extra_body={"include_reasoning": False})
    assert hidden.choices[0].message.content == ""
    assert not hasattr(hidden.choices[0].message, "reasoning_content")
    chunks = [chunk.choices[0].delta for chunk in _ask(thinker, seed=1, stream=True, extra_body={
        "stream_reasoning": False})]  # fmt: skip
    assert [chunk.reasoning_content for chunk in chunks if hasattr(chunk, "reasoning_content")] == [told]
    off = _ask(thinker, seed=1, reasoning_effort="none").choices[0].message
    assert off.content and not hasattr(off, "reasoning_content")
