"""Calls in formats that are not JSON, through OpenAI's client: whole, streamed, cut, and with tools of all kinds."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema_rs
import openai
import pytest

from slurminfer.nodes.native.tokenizer import Tokenizer

from ....support.chat_model import write_chat_model, write_tokenizer

pytestmark = pytest.mark.process

PARAMETERS: dict[str, Any] = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "maxLength": 8},
        "unit": {"enum": ["C", "F"]},
        "days": {"type": ["integer", "null"], "minimum": 1, "maximum": 9},
        "exact": {"type": "boolean"},
    },
    "required": ["city", "unit", "days", "exact"],
}
QUESTION: Any = [{"role": "user", "content": "Weather?"}]
NAMES = ("class", "a.b:c/d")
TEMPLATE = """\
{%- if tools %}{{ '<|system|>' ~ (tools | length) ~ ' tools<|end|>' }}{% endif %}
{%- for message in messages %}{{ '<|' + message.role + '|>' + message.content }}
    {%- for call in message.tool_calls %}{{ call.function | tojson }}{% endfor %}{{ '<|end|>' }}
{%- endfor %}{{ '<|start|>assistant' }}"""


def tools(*names: str, strict: bool = True) -> Any:
    return [{"type": "function", "function": {"name": n, "parameters": PARAMETERS, "strict": strict}} for n in names]


@pytest.fixture(scope="module", params=["qwen_coder", "pythonic", "harmony"])
def parsing(request, tmp_path_factory, serving) -> Iterator[openai.OpenAI]:
    """The random model with one of these formats."""
    directory: Path = tmp_path_factory.mktemp("models") / "formats"
    write_chat_model(directory)
    (directory / "chat_template.jinja").write_text(TEMPLATE)
    with serving(
        "--model", str(directory), "--dtype", "float32", "--kv-cache-gib", "0.05", "--tool-parser", request.param
    ) as running:
        yield running.client()


@pytest.fixture(scope="module")
def bias(tmp_path_factory) -> dict[str, float]:
    """With it, a random model comes to its call: it writes no more white space than it must, and thinks nothing.

    After `<|channel|>`, the first letter of `commentary` comes, not that of `analysis`.
    """
    directory: Path = tmp_path_factory.mktemp("tokenizer")
    write_tokenizer(directory)
    tokenizer = Tokenizer(directory)
    texts = {str(id): tokenizer.token_bytes(id) for id in range(320)}
    return {id: -100 if text.isspace() else 40 for id, text in texts.items() if text.isspace() or text == b"c"}


def _ask(client: openai.OpenAI, **params: Any) -> Any:
    name = client.models.list().data[0].id
    return client.chat.completions.create(**{"model": name, "messages": QUESTION, "max_tokens": 300, **params})


def _named(name: str) -> Any:
    return {"type": "function", "function": {"name": name}}


@pytest.mark.parametrize("name", NAMES)
def test_a_call_is_forced_whole_and_streamed(parsing, bias, name):
    params = {"tools": tools(*NAMES), "tool_choice": _named(name), "seed": 1, "logit_bias": bias}
    [whole] = _ask(parsing, **params).choices
    assert whole.finish_reason == "tool_calls"
    [call] = whole.message.tool_calls
    assert (call.function.name, whole.message.content) == (name, None)
    jsonschema_rs.validate(PARAMETERS, json.loads(call.function.arguments))
    deltas = [chunk.choices[0].delta for chunk in _ask(parsing, stream=True, **params)]
    told = [part for delta in deltas for part in delta.tool_calls or ()]
    assert "".join(part.function.arguments or "" for part in told) == call.function.arguments
    assert [part.id for part in told if part.id] == [call.id]


@pytest.mark.parametrize("most", [1, 5, 20, 40])
def test_a_call_that_is_cut_is_no_error(parsing, most):
    params = {"tools": tools("f"), "tool_choice": "required", "seed": 1, "max_tokens": most}
    [choice] = _ask(parsing, **params).choices
    assert choice.finish_reason == "length" or choice.message.tool_calls
    for part in choice.message.tool_calls or ():
        assert part.function.name == "f"
    chunks = list(_ask(parsing, stream=True, **params))
    assert chunks[-1].choices[0].finish_reason == choice.finish_reason


def test_a_stop_string_within_a_call_ends_it(parsing):
    params = {"tools": tools("f"), "tool_choice": "required", "seed": 1, "stop": ["city"]}
    [choice] = _ask(parsing, **params).choices
    assert choice.finish_reason in ("tool_calls", "stop", "length")
    for part in choice.message.tool_calls or ():
        assert "city" not in part.function.arguments


def test_many_tools(parsing):
    many = tools(*(f"tool_{number}" for number in range(200)), strict=False)
    [choice] = _ask(parsing, tools=many, tool_choice="required", parallel_tool_calls=False, seed=2).choices
    for part in choice.message.tool_calls or ():
        assert part.function.name.startswith("tool_")
    assert choice.message.tool_calls or choice.finish_reason == "length"


@pytest.mark.parametrize("name", ["wetter_für", "a b", "", "f(", "x" * 129, 5])
def test_names_that_cannot_be_are_refused(parsing, name):
    with pytest.raises(openai.BadRequestError, match=r"tools\[0\]\.function\.name = .*: expected 1 to 128 letters"):
        _ask(parsing, tools=[{"type": "function", "function": {"name": name}}], max_tokens=1)


@pytest.mark.parametrize("place", ["tools", "messages", "chat_template_kwargs"])
def test_integers_beyond_64_bits_are_refused(parsing, place):
    huge: Any = {"type": "object", "properties": {"a": {"maximum": 10**30}}}
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": {"a": 10**30}}}
    fields: Any = {
        "tools": {"tools": [{"type": "function", "function": {"name": "f", "parameters": huge}}]},
        "messages": {"messages": [*QUESTION, {"role": "assistant", "tool_calls": [call]}]},
        "chat_template_kwargs": {"extra_body": {"chat_template_kwargs": {"a": 10**30}}},
    }[place]
    with pytest.raises(openai.BadRequestError, match="an integer beyond 64 bits"):
        _ask(parsing, max_tokens=1, **fields)


def test_calls_of_every_kind_can_be_sent_back(parsing):
    for arguments in (
        '{"a": [1, null, {"b": [[]]}], "ü": 1e99}',
        "no JSON",
        '"text"',
        f'{{"a": {"9" * 500}}}',
        "[" * 500,
    ):
        call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": arguments}}
        turns = [*QUESTION, {"role": "assistant", "tool_calls": [call]}, {"role": "tool", "tool_call_id": "c1",
                 "content": "18"}]  # fmt: skip
        assert _ask(parsing, messages=turns, tools=tools("f"), max_tokens=1).choices


def test_strict_tools_in_free_text(parsing):
    answer = _ask(parsing, tools=tools("f"), seed=3, max_tokens=60)
    for part in answer.choices[0].message.tool_calls or ():
        assert part.function.name == "f"
