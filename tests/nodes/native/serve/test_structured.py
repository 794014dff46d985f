"""Structured output by all its names, through the server."""

import json
import re
from enum import Enum
from typing import Any, Literal

import httpx
import jsonschema
import openai
import pytest
from pydantic import BaseModel, Field

from slurminfer.nodes.native.api.errors import ApiError
from slurminfer.nodes.native.api.requests.chat import ChatRequest
from slurminfer.nodes.native.api.requests.protocol import parse
from slurminfer.nodes.native.api.requests.structured import structure_of
from slurminfer.nodes.native.grammar.constraint import ANY_OBJECT, Choices, Ebnf, JsonSchema, Lark, Regex, Tag, Tags

MESSAGES = [{"role": "user", "content": "The quick brown fox?"}]
SCHEMA: dict[str, Any] = {
    "type": "array",
    "items": {"enum": ["ü🎉", 12, None, {"a": [1]}]},
    "minItems": 2,
    "maxItems": 3,
}
WANTED = JsonSchema(SCHEMA)
LEGACY = {"structures": [{"begin": "<f>", "schema": SCHEMA, "end": "</f>"}], "triggers": ["<f>"]}
TAGGED = Tags([Tag("<f>", WANTED, "</f>")], triggers=["<f>"])
TREE = {
    "type": "tags_with_separator",
    "separator": ",",
    "at_least_one": True,
    "stop_after_first": True,
    "tags": [{"type": "tag", "begin": "<f>", "content": {"type": "json_schema", "json_schema": SCHEMA}, "end": "</f>"}],
}
TRIGGERED = {
    "type": "triggered_tags",
    "triggers": ["<"],
    "tags": [{"begin": "<f>", "content": {"type": "regex", "pattern": "x"}, "end": ""}],
}


def _request(**fields: Any) -> ChatRequest:
    return parse(ChatRequest, json.dumps({"model": "m", "messages": MESSAGES, **fields}).encode())


def _format(**fields: Any) -> dict[str, Any]:
    return {"response_format": {"type": "json_schema", "json_schema": {"name": "x", **fields}}}


@pytest.mark.parametrize(
    ("fields", "param", "wanted"),
    [
        (_format(schema=SCHEMA), "response_format", WANTED),
        (_format(schema=SCHEMA, strict=True), "response_format", WANTED),
        ({"response_format": {"type": "json_object"}}, "response_format", ANY_OBJECT),
        ({"response_format": {"type": "structural_tag", **LEGACY}}, "response_format", TAGGED),
        ({"guided_json": SCHEMA}, "guided_json", WANTED),
        ({"guided_json": json.dumps(SCHEMA)}, "guided_json", WANTED),
        ({"guided_json": {}}, "guided_json", JsonSchema({})),
        ({"json_schema": json.dumps(SCHEMA)}, "json_schema", WANTED),
        ({"guided_json": SCHEMA, "guided_whitespace_pattern": " ?"}, "guided_json", JsonSchema(SCHEMA, " ?")),
        ({"guided_regex": "a+"}, "guided_regex", Regex("a+")),
        ({"regex": "a+"}, "regex", Regex("a+")),
        ({"guided_choice": ["a", "b"]}, "guided_choice", Choices(("a", "b"))),
        ({"guided_grammar": "start: /x/"}, "guided_grammar", Lark("start: /x/")),
        ({"guided_grammar": 'root ::= "x"'}, "guided_grammar", Ebnf('root ::= "x"')),
        ({"ebnf": 'root ::= "x"'}, "ebnf", Ebnf('root ::= "x"')),
        ({"structured_outputs": {"json": SCHEMA}}, "structured_outputs.json", WANTED),
        ({"structured_outputs": {"json": SCHEMA, "disable_any_whitespace": True}}, "structured_outputs.json",
         JsonSchema(SCHEMA, "")),
        ({"structured_outputs": {"json": SCHEMA, "whitespace_pattern": " "}}, "structured_outputs.json",
         JsonSchema(SCHEMA, " ")),
        ({"structured_outputs": {"regex": "a"}}, "structured_outputs.regex", Regex("a")),
        ({"structured_outputs": {"choice": ["a"]}}, "structured_outputs.choice", Choices(("a",))),
        ({"structured_outputs": {"grammar": "start: /x/"}}, "structured_outputs.grammar", Lark("start: /x/")),
        ({"structured_outputs": {"json_object": True}}, "structured_outputs.json_object", ANY_OBJECT),
        ({"structured_outputs": {"structural_tag": json.dumps({"type": "structural_tag", **LEGACY})}},
         "structured_outputs.structural_tag", TAGGED),
        ({"structured_outputs": {"structural_tag": {"type": "structural_tag", "format": TREE}}},
         "structured_outputs.structural_tag", Tags([Tag("<f>", WANTED, "</f>")], separator=",", least=1, most=1)),
        ({"response_format": {"type": "structural_tag", "format": TRIGGERED}}, "response_format",
         Tags([Tag("<f>", Regex("x"))], triggers=["<"])),
    ],
)  # fmt: skip
def test_every_name_says_the_same(fields, param, wanted):
    found = structure_of(_request(**fields))
    assert found is not None
    assert (found.param, found.constraint) == (param, wanted)


@pytest.mark.parametrize(
    "fields",
    [{}, {"response_format": None}, {"response_format": {"type": "text"}}, {"response_format": {}}, {"regex": ""},
     {"guided_choice": []}, {"guided_json": None}, {"structured_outputs": {"json_object": False}}, {"ebnf": None},
     {"structured_outputs": {}}, {"guided_decoding_backend": "xgrammar"}, {"guided_whitespace_pattern": " "}],
)  # fmt: skip
def test_what_asks_for_nothing(fields):
    assert structure_of(_request(**fields)) is None


@pytest.mark.parametrize(
    ("fields", "param", "said"),
    [
        ({"regex": "a", "guided_choice": ["a"]}, "regex", "guided_choice and regex exclude each other"),
        ({"guided_json": {}, **_format(schema={})}, "guided_json", "response_format and guided_json exclude each"),
        ({"structured_outputs": {"json": {}, "regex": "a"}}, "structured_outputs.regex", "exclude each other"),
        ({"response_format": {"type": "xml"}}, "response_format.type", "expected text, json_object, json_schema or"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema", "expected {"),
        (_format(), "response_format.json_schema.schema", "missing"),
        (_format(schema=3), "response_format.json_schema.schema", "expected a JSON schema"),
        (_format(schema={}, strict="yes"), "response_format.json_schema.strict", 'strict = "yes": expected true or'),
        ({"guided_json": "{"}, "guided_json", "expected a JSON schema"),
        ({"json_schema": "[" * 100 + "]" * 100}, "json_schema", "json_schema"),
        ({"response_format": {"type": "json_object", "schema": {"type": "object"}}}, "response_format.schema",
         'with a schema, type is "json_schema"'),
        ({"guided_choice": "a"}, "guided_choice", "expected a list"),
        ({"guided_regex": 3}, "guided_regex", "expected a string"),
        ({"regex": "x" * 600_000}, "regex", "has 600000 characters: expected at most 524288"),
        ({"structured_outputs": {"xml": 1}}, "structured_outputs.xml", "no such key: expected json, regex, choice,"),
        ({"structured_outputs": {"choice": [1]}}, "structured_outputs.choice", "expected a list of strings"),
        ({"structured_outputs": {"json_object": 1}}, "structured_outputs.json_object", "expected true or false"),
        ({"response_format": {"type": "structural_tag", "structures": []}}, "response_format.structures", "1 to 256"),
        ({"response_format": {"type": "structural_tag", "format": {"type": "any"}}}, "response_format.format.type",
         "expected json_schema, regex"),
        ({"response_format": {"type": "structural_tag", "format": {"type": "tag", "content": {"type": "regex"}}}},
         "response_format.format.content.pattern", "expected a string"),
    ],
)  # fmt: skip
def test_what_is_no_constraint_is_refused_by_its_name(fields, param, said):
    with pytest.raises(ApiError) as refused:
        structure_of(_request(**fields))
    assert (refused.value.status, refused.value.param) == (400, param)
    assert said in refused.value.message


process = pytest.mark.process


def _tags(levels: int) -> dict[str, Any]:
    part: dict[str, Any] = {"type": "regex", "pattern": "x"}
    for _ in range(levels):
        part = {"type": "tag", "begin": "a", "content": part}
    return {"format": part}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (json.dumps(_tags(400)), "is nested too deep: expected at most 64 levels"),
        (json.dumps({"structures": [{"begin": "a", "schema": {"const": "x" * 600_000}}]}), "expected at most 524288"),
        ('{"format": {"type": "json_schema", "json_schema": {"const": ' + "[" * 900 + "]" * 900 + "}}}", "too deep"),
    ],
)
def test_texts_of_json_have_the_bounds_of_the_body(text, said):
    for name in ("structural_tag", "json"):
        with pytest.raises(ApiError, match=f"structured_outputs.{name} .*{said}"):
            structure_of(_request(structured_outputs={name: text}))


def _ask(server, **fields: Any) -> dict[str, Any]:
    body = {"model": "tiny", "messages": MESSAGES, "max_tokens": 200, "temperature": 1.0, "seed": 3, **fields}
    answer = httpx.post(f"{server.url}/v1/chat/completions", json=body, timeout=60)
    return {"status": answer.status_code, **answer.json()}


def _text(answer: dict[str, Any]) -> str:
    return str(answer["choices"][0]["message"]["content"])


@process
@pytest.mark.parametrize("temperature", [0, 1])
def test_a_stream_says_what_the_whole_answer_says(client, temperature):
    asked = {"model": "tiny", "messages": MESSAGES, "max_tokens": 200, "temperature": temperature, "seed": 5,
             "response_format": _format(schema=SCHEMA)["response_format"]}  # fmt: skip
    whole = client.chat.completions.create(**asked).choices[0]
    stream = [chunk.choices[0] for chunk in client.chat.completions.create(**asked, stream=True)]
    assert "".join(choice.delta.content or "" for choice in stream) == whole.message.content
    assert stream[-1].finish_reason == whole.finish_reason == "stop"
    jsonschema.validate(json.loads(whole.message.content), SCHEMA)


@process
def test_all_choices_obey(server):
    answer = _ask(server, n=6, guided_json=SCHEMA)
    texts = [choice["message"]["content"] for choice in answer["choices"]]
    assert len(set(texts)) > 1
    for text in texts:
        jsonschema.validate(json.loads(text), SCHEMA)


@process
@pytest.mark.parametrize(
    ("fields", "pattern"),
    [
        ({"guided_choice": ["keys", "keys and values", "こんにちは"]}, "keys|keys and values|こんにちは"),
        ({"regex": "[a-f]{3}-[0-9]{2}🎉"}, "[a-f]{3}-[0-9]{2}🎉"),
        ({"ebnf": 'root ::= "a" [0-9] | "b" root'}, "b*a[0-9]"),
        ({"guided_regex": "[a-z]{1,9}", "stop": ["a", "e", "o"]}, "[b-df-np-z]{0,9}"),
        ({"guided_regex": "[a-z]{5}", "ignore_eos": True}, "[a-z]{5}"),
        ({"guided_regex": "[a-z]{5}[a-z]*", "ignore_eos": True, "max_tokens": 9}, "[a-z]{5,}"),
        ({"guided_regex": "[a-z]{5}", "logprobs": True, "top_logprobs": 3}, "[a-z]{5}"),
    ],
)  # fmt: skip
def test_texts_by_other_grammars(server, fields, pattern):
    for seed in range(4):
        assert re.fullmatch(pattern, _text(_ask(server, seed=seed, **fields)))


@process
def test_completions_obey_too(client):
    answer = client.completions.create(
        model="tiny", prompt=["The", "quick"], max_tokens=200, extra_body={"guided_json": SCHEMA}
    )
    for choice in answer.choices:
        jsonschema.validate(json.loads(choice.text), SCHEMA)


class Color(Enum):
    RED = "red"
    GREEN = "green"


class Cat(BaseModel):
    kind: Literal["cat"]
    lives: int = Field(ge=1, le=9)


class Dog(BaseModel):
    kind: Literal["dog"]
    color: Color


class Shelter(BaseModel):
    best: Cat | Dog = Field(discriminator="kind")
    second: Cat | None
    count: int = Field(ge=0, le=99)


@process
def test_openais_client_parses_a_pydantic_model(client):
    for seed in range(4):
        found = client.chat.completions.parse(
            model="tiny", messages=MESSAGES, max_tokens=400, seed=seed, response_format=Shelter
        )
        assert isinstance(found.choices[0].message.parsed, Shelter)


@process
@pytest.mark.parametrize(
    ("fields", "param", "said"),
    [
        ({"guided_json": {"properties": {"a": {"not": {}}}}}, "guided_json", "at /properties/a/not: the keyword 'not'"),
        (_format(schema={"items": {"type": "strin"}}), "response_format", "at /items: Invalid type: strin"),
        ({"regex": "a(?=b)"}, "regex", "look-around"),
        ({"ebnf": "root ::= x"}, "ebnf", "'x' not found"),
        ({"guided_grammar": "start: x"}, "guided_grammar", 'unknown name: "x"'),
        ({"structured_outputs": {"json": {"$ref": "#"}}}, "structured_outputs.json", "no text can satisfy it"),
        ({"regex": "ab", "continue_token_ids": [9, 9]}, "continue_token_ids", "does not allow token 9 at place 0"),
        ({"regex": "ab", "n": 2, "continue_token_ids": [[], [9]]}, "continue_token_ids[1]", "not allow token 9"),
    ],
)  # fmt: skip
def test_what_cannot_be_compiled_is_refused_and_the_server_goes_on(server, fields, param, said):
    error = _ask(server, **fields)
    assert (error["status"], error["error"]["param"]) == (400, param)
    assert said in error["error"]["message"]
    assert _text(_ask(server, guided_choice=["fine"])) == "fine"


@process
def test_a_grammar_that_meets_a_limit_ends_its_request_with_its_reason(server):
    error = _ask(server, guided_regex="(?:a?){5000}a{5000}")
    assert (error["status"], error["error"]["code"]) == (400, "request_failed")  # 500 would be held against the worker
    assert error["error"]["message"].startswith("the answer's structure: the grammar cannot go on")
    assert _text(_ask(server, guided_choice=["fine"])) == "fine"


@process
def test_a_huge_enum_is_refused_before_anything_is_made_of_it(server, client):
    with pytest.raises(openai.BadRequestError, match="expected at most 524288"):
        client.chat.completions.create(
            model="tiny", messages=MESSAGES, max_tokens=5,
            extra_body={"guided_json": {"enum": [f"value {number}" for number in range(600_000)]}},
        )  # fmt: skip
