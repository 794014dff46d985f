"""What rows ask for, as the parameters of a batch say."""

import json

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slurminfer.core.errors import UsageError
from slurminfer.jobs.batch.inputs.building import Builder
from slurminfer.jobs.batch.inputs.request import BadRowError
from slurminfer.jobs.batch.inputs.row import Row
from slurminfer.jobs.batch.inputs.templates import template
from slurminfer.jobs.batch.parameters import Parameters

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
HI = [{"role": "user", "content": "hi"}]


def build(value, format="jsonl", columns=(), **parameters):
    return Builder(Parameters(**parameters)).build(Row(3, 4, 5, value, None, format, columns))


def refused(value, format="jsonl", **parameters) -> str:
    with pytest.raises(BadRowError) as raised:
        build(value, format, **parameters)
    return str(raised.value)


def test_rows_that_say_it_themselves():
    request = build({"id": "a", "prompt": "hello", "max_tokens": 5, "seed": None})
    assert (request.path, request.body) == (COMPLETIONS, {"prompt": "hello", "max_tokens": 5})
    assert (request.id, request.shard, request.index, request.line) == ("a", 3, 4, 5)
    assert request.prompt_bytes == 5 and not request.whole_answer and request.turns == ()
    request = build({"messages": HI, "turns": ["and?"], "n": 1})
    assert (request.path, request.body) == (CHAT, {"messages": HI, "n": 1})
    assert (request.id, request.turns, request.prompt_bytes) == (None, ("and?",), 6)
    assert build({"messages": HI, "n": 3}).body["n"] == 3


def test_messages_keep_what_else_they_say():
    tool = {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}], "name": None}
    parts = {"role": "user", "content": [{"type": "text", "text": "abc"}, {"type": "image_url", "image_url": {}}]}
    request = build({"messages": [parts, tool]})
    assert request.body["messages"] == [parts, {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]}]
    assert request.prompt_bytes == 3


def test_lines_of_openai():
    line = {"custom_id": "c", "method": "POST", "url": "/v1/embeddings", "body": {"input": "a"}}
    request = build(line, schema='{"type": "object"}')
    assert (request.path, request.body, request.id, request.whole_answer) == (
        "/v1/embeddings",
        {"input": "a"},
        "c",
        True,
    )
    request = build({**line, "url": CHAT, "body": {"messages": HI}}, schema='{"type": "object"}', system="s")
    assert request.body["response_format"]["type"] == "json_schema"
    assert [each["role"] for each in request.body["messages"]] == ["system", "user"]
    assert line["body"] == {"input": "a"}


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({}, "expected either 'prompt' or 'messages' .* the row has: nothing"),
        ({"prompt": "a", "messages": HI}, "the row has: prompt, messages"),
        ({"prompt": 5}, "prompt: expected a string, got 5"),
        ({"prompt": "a", "id": True}, "id: expected a string or an integer, got True"),
        ({"messages": []}, "messages: expected a list"),
        ({"messages": [5]}, r"messages\[0\]: expected"),
        ({"messages": [{"role": "user"}]}, r"messages\[0\]: expected"),
        ({"messages": HI, "n": 0}, "n: expected an integer of at least 1, got 0"),
        ({"messages": HI, "n": True}, "n: expected an integer"),
        ({"messages": HI, "stream": True}, "stream: a batch takes whole answers"),
        ({"messages": HI, "turns": "a"}, "turns: expected a list of strings"),
        ({"messages": HI, "turns": ["a"], "n": 2}, "turns: expected n = 1, got 2"),
        ({"prompt": "a", "turns": ["a"]}, "turns: only for chat messages"),
        ({"custom_id": None}, "custom_id: expected a string or an integer, got null"),
        ({"custom_id": "a", "url": "/v1/../workers", "body": {}}, "url: expected a path below /v1/"),
        ({"custom_id": "a", "url": "/v1/a b\r\nx: y", "body": {}}, "url: expected"),
        ({"custom_id": "a", "url": CHAT, "body": []}, "body: expected a JSON object"),
        ({"custom_id": "a", "method": "GET"}, "method: expected POST, got 'GET'"),
        ({"custom_id": "a", "url": CHAT, "body": {"stream": True}}, "stream"),
    ],
)
def test_rows_that_ask_for_nothing_that_can_be_done(value, message):
    with pytest.raises(BadRowError, match=message):
        build(value)


def test_lines_of_text_are_what_a_user_says():
    assert build({"prompt": "hi"}, "text").body == {"messages": HI}
    request = build({"prompt": "hi"}, "text", completions=True)
    assert (request.path, request.body) == (COMPLETIONS, {"prompt": "hi"})
    assert build({"prompt": "hi"}, "text", system="s", turns=("{{ prompt }}?",)).turns == ("hi?",)


def test_parameters_in_csv_are_json():
    value = {"id": "007", "prompt": "12", "max_tokens": "64", "stop": "end", "ignore_eos": "true", "seed": ""}
    request = build(value, "csv")
    assert request.id == "007"
    assert request.body == {"prompt": "12", "max_tokens": 64, "stop": "end", "ignore_eos": True}
    assert build({"messages": json.dumps(HI)}, "csv").body == {"messages": HI}
    assert build({"prompt": ""}, "csv").body == {"prompt": ""}


def test_a_prompt_column():
    value = {"id": 7, "text": "hi", "max_tokens": 3}
    request = build(value, prompt_column="text")
    assert (request.path, request.body, request.id) == (CHAT, {"messages": HI}, 7)
    assert build(value, prompt_column="text", completions=True).body == {"prompt": "hi"}
    assert build({**value, "id": 0.5}, prompt_column="text").id is None
    assert refused(value, prompt_column="txt") == "no column 'txt'; the row has: id, text, max_tokens"
    assert refused({"text": None}, prompt_column="text") == "text: expected text, got null"
    builder = Builder(Parameters(prompt_column="txt"))
    with pytest.raises(BadRowError, match="no column 'txt'; the row has: a, b"):
        builder.build(Row(0, 0, 1, {}, None, "parquet", ("a", "b")))


def test_a_messages_column():
    turns = [{"from": "system", "value": "s"}, {"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]
    expected = [{"role": role, "content": text} for role, text in (("system", "s"), ("user", "q"), ("assistant", "a"))]
    assert build({"conversations": turns}, messages_column="conversations").body["messages"] == expected
    assert build({"c": json.dumps(turns)}, messages_column="c", system="x").body["messages"] == expected
    assert refused({"c": [{"from": "alien", "value": ""}]}, messages_column="c").startswith("c[0]: from = 'alien': exp")
    assert refused({"c": "no"}, messages_column="c") == "c: expected a list of messages or its JSON, got 'no'"
    assert "no column 'c'" in refused({"d": 1}, messages_column="c")


def test_templates():
    row = {"text": "hi", "my col": [1, 2], "none": None}
    made = build(row, template="{{ text }}{% for each in row['my col'] %} {{ each }}{% endfor %}", system="{{ text }}!")
    assert made.body["messages"] == [{"role": "system", "content": "hi!"}, {"role": "user", "content": "hi 1 2"}]
    assert build(row, template="{{ text }}", completions=True).body == {"prompt": "hi"}
    assert build(row, template="{{ txt | default('-') }}").body["messages"][0]["content"] == "-"
    assert build(row, prompt_column="text", turns=("{{ text }}?", "so")).turns == ("hi?", "so")
    assert refused(row, template="{{ txt }}") == "--template: no column 'txt'; the row has: text, my col, none"
    assert "no column 'txt'" in refused(row, prompt_column="text", turns=("{{ txt.a }}",))
    assert "has no attribute 'b'" in refused(row, template="{{ text.b }}")


@pytest.mark.parametrize(
    "text",
    [
        "{{ text.__class__.__mro__ }}", "{{ text + 1 }}", "{{ 1 / 0 }}", "{{ none | tojson | length + 'a' }}",
        "{% for i in range(10 ** 6) %}a{% endfor %}", "{{ text * 10 ** 9 }}", "{{ 10 ** 100000 }}",
        "{% include 'a' %}", "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "{{ [1] * 10 ** 9 }}",
        "{{ row.clear() }}",
        "{% for i in range(99999) %}{% for j in range(99999) %}{{ text }}{% endfor %}{% endfor %}",
    ],
)  # fmt: skip
def test_templates_that_fail_are_a_rows_error(text, monkeypatch):
    monkeypatch.setattr(template, "LONGEST_TEXT", 100_000)
    assert refused({"text": "abc", "none": None}, template=text).startswith("--template: ")


def test_columns_that_are_needed():
    def columns(**parameters):
        return Builder(Parameters(**parameters)).columns

    assert columns() is None and columns(system="{{ a }}") is None
    assert columns(prompt_column="p", turns=("{{ b }} {{ range(3) }}",)) == ("b", "id", "p")
    assert columns(messages_column="m", system="{% for a in c %}{{ a }}{% endfor %}") == ("c", "id", "m")
    assert columns(template="{{ a }}{{ row.b }}") is None


def test_a_schema():
    schema = {"type": "object", "properties": {"a": {"type": "string"}}}
    found = build({"messages": HI}, schema=json.dumps(schema)).body["response_format"]
    assert found == {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema, "strict": True}}
    own = {"type": "text"}
    assert build({"messages": HI, "response_format": own}, schema="{}").body["response_format"] == own


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"prompt_column": "a", "template": "b"}, "--prompt-column and --template: expected one of them"),
        ({"completions": True, "system": "a"}, "--completions and --system"),
        ({"completions": True, "messages_column": "a"}, "--completions and --messages-column"),
        ({"samples": 0}, "--samples 0: expected 1 or more"),
        ({"samples": 2, "turns": ("a",)}, "--turn and --samples 2: expected one of them"),
        ({"template": "{{ a"}, "--template: line 1: .*expected a Jinja template"),
        ({"turns": ("ok", "{% if %}")}, "--turn: line 1"),
        ({"template": "{{ a | nofilter }}"}, "--template: line 1: No filter named 'nofilter'"),
        ({"schema": "{"}, "--schema: expected a JSON schema"),
        ({"schema": "[]"}, "--schema: expected a JSON schema"),
    ],
)
def test_parameters_that_contradict_each_other(parameters, message):
    with pytest.raises(UsageError, match=message):
        Builder(Parameters(**parameters))


def test_samples_and_turns_of_a_row():
    assert "turns: expected n = 1, got 2" in refused({"messages": HI, "turns": ["a"]}, samples=2)
    assert build({"messages": HI, "turns": ["a"], "n": 1}, samples=2).turns == ("a",)
    assert "n" not in build({"messages": HI}, samples=2).body


def test_what_a_batch_says_and_a_completion_cannot_have():
    assert "--system: only for chat messages" in refused({"prompt": "a"}, system="s")
    assert "--turn: only for chat messages" in refused({"prompt": "a"}, turns=("s",))


def test_keys_tell_requests_apart_and_nothing_else():
    row = {"id": "a", "messages": HI, "turns": ["b"], "top_p": 0.5, "seed": 1}
    key = build(row).key
    assert len(key) == 32 and int(key, 16) >= 0
    assert build(dict(reversed(row.items()))).key == key
    assert build(row, answer_column="x").key == key
    for name, value in {"id": "b", "turns": ["c"], "seed": 2, "messages": [{"role": "user", "content": "ho"}]}.items():
        assert build({**row, name: value}).key != key
    assert build({"prompt": "hi"}, "text", completions=True).key != build({"prompt": "hi"}, "text").key


message_keys = st.sampled_from(["role", "content", "from", "value"])
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5) | message_keys, inner),
    max_leaves=8,
)
names = st.sampled_from(["id", "prompt", "messages", "turns", "n", "stream", "custom_id", "method", "url", "body", "x"])


@settings(max_examples=300, deadline=None)
@given(
    value=st.dictionaries(names, json_values | st.sampled_from([CHAT, HI]), max_size=6),
    format=st.sampled_from(["jsonl", "csv", "parquet"]),
    parameters=st.sampled_from(
        [
            {},
            {"prompt_column": "x"},
            {"messages_column": "x"},
            {"template": "{{ x.a[0] }}"},
            {"system": "{{ id }}", "turns": ("{{ x }}",)},
        ]
    ),
)
def test_any_row_is_a_request_or_one_error(value, format, parameters):
    if format == "csv":
        value = {name: str(each) for name, each in value.items()}
    try:
        request = build(value, format, **parameters)
    except (
        BadRowError,
        OverflowError,
        RecursionError,
        msgspec.MsgspecError,
        ValueError,
    ) as error:  # as the feeder does
        assert str(error)
    else:
        assert request.path.startswith("/v1/") and msgspec.json.encode(request.body)


def test_values_that_json_cannot_hold():
    deep: list = []
    for _ in range(5000):
        deep = [deep]
    assert refused({"prompt": "a", "x": deep}) == "nested too deeply"
    assert refused({"prompt": "a", "x": object()}).startswith("has a value that JSON cannot hold: ")
    assert refused({"prompt": "a", "x": "\ud800"}).startswith("has a value that JSON cannot hold: ")
    assert build({"prompt": "a", "x": 1 << 70}).body["x"] == 1 << 70
