"""Calls forced in formats that are not JSON: what the grammar allows is read as arguments that are valid."""

import json
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import tokenizers
from tokenizers import decoders, models, pre_tokenizers

from slurminfer.nodes.native.api.answers.reader import AnswerReader, Reading
from slurminfer.nodes.native.api.requests.tools import toolset
from slurminfer.nodes.native.api.tools.families import FAMILIES, FORCED
from slurminfer.nodes.native.api.tools.plan import call_plan
from slurminfer.nodes.native.grammar.errors import ConstraintError
from slurminfer.nodes.native.tokenizer import Tokenizer

from ....support.grammars import TokenGrammars

BY_NAME = {family.name: family for family in FAMILIES}
OWN = [
    "qwen_coder",
    "seed",
    "minimax",
    "glm",
    "dsml",
    "pythonic",
    "lfm2",
    "olmo3",
    "tool_code",
    "gemma",
]  # formats in which each argument is written by itself
SCHEMAS: dict[str, dict[str, Any]] = {
    "strings": {
        "type": "object",
        "properties": {
            "choice": {"type": "string", "enum": ["a b", "ü</parameter", "5"]},
            "short": {"type": "string", "minLength": 1, "maxLength": 3, "description": "some"},
            "code": {"type": "string", "pattern": "^[A-Z]{2}-[0-9]$"},
            "part": {"type": "string", "pattern": "x[0-9]", "maxLength": 6},
            "id": {"type": "string", "format": "uuid"},
        },
        "required": ["choice", "short", "code", "part", "id"],
    },
    "values": {
        "type": "object",
        "properties": {
            "count": {"type": "integer", "minimum": 1, "maximum": 20},
            "flag": {"type": "boolean"},
            "kind": {"enum": ["a", 1, None]},
            "maybe": {"anyOf": [{"type": "string", "maxLength": 2}, {"type": "null"}]},
            "either": {"type": ["string", "integer"], "maxLength": 2, "maximum": 9, "minimum": 0},
            "list": {"type": "array", "items": {"enum": ["</parameter>", "</arg_value>", 2]}, "maxItems": 2},
            "point": {"$ref": "#/$defs/point"},
            "tag": {"$ref": "#/$defs/tag"},
        },
        "required": ["count", "kind", "list", "point", "tag"],
        "$defs": {
            "point": {"type": "object", "properties": {"x": {"type": "integer", "maximum": 9, "minimum": 0}},
                      "required": ["x"], "additionalProperties": False},
            "tag": {"type": "string", "maxLength": 2},
        },
    },
    "open": {
        "type": "object", "properties": {"a": {"type": "integer", "maximum": 9, "minimum": 0}},
        "additionalProperties": {"type": "boolean"},
    },
    "optional": {"type": "object", "properties": {"a": {"const": "1"}, "b": {"const": 2}, "c": {"type": "null"}}},
}  # fmt: skip


@pytest.fixture(scope="module")
def grammars(tokenizer: Tokenizer) -> TokenGrammars:
    return TokenGrammars(tokenizer, 266)


@pytest.fixture(scope="module")
def special(tmp_path_factory: pytest.TempPathFactory) -> TokenGrammars:
    """Of a tokenizer for which the tags themselves, or parts of them, are special tokens."""
    directory: Path = tmp_path_factory.mktemp("special")
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    written = tokenizers.Tokenizer(models.BPE(vocab={char: id for id, char in enumerate(alphabet)}, merges=[]))
    written.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    written.decoder = decoders.ByteLevel()
    names = ["<|stop|>", "<tool_call>", "</tool_call>", "<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>",
             "｜DSML｜", '<|"|>', "<|tool_call>", "<tool_call|>"]  # fmt: skip
    written.add_special_tokens(names)
    written.save(str(directory / "tokenizer.json"))
    (directory / "tokenizer_config.json").write_text('{"eos_token": "<|stop|>"}')
    return TokenGrammars(Tokenizer(directory), 256 + len(names))


@pytest.mark.parametrize("name", ["glm", "dsml", "gemma"])
@pytest.mark.parametrize("kind", ["strings", "open"])
def test_tags_may_be_special_tokens(special, name, kind):
    schema = SCHEMAS[kind]
    plan = call_plan(tools_of(schema), BY_NAME[name], "", None)
    free = call_plan(tools_of(schema, "auto"), BY_NAME[name], "", None)
    found = [text for seed in range(4) if (text := special.random_text(plan.constraint, seed, 1500)) is not None]
    assert found and free.constraint is not None
    for answer in found:
        whole = {"additionalProperties": True, **schema}
        jsonschema_rs.validate(whole, arguments(plan.family, answer, schema), validate_formats=True)
        assert special.takes(free.constraint, f"a < b </ {answer}")
    begin = BY_NAME[name].format.begins[0]
    assert not special.takes(free.constraint, f"a < b </ {begin} {found[0]}")


def tools_of(parameters: dict[str, Any], choice: Any = "required", *, strict: bool = True, name: str = "f") -> Any:
    function = {"name": name, "parameters": parameters, "strict": strict}
    return toolset([{"type": "function", "function": function}], choice, False)


def arguments(family: Any, answer: str, parameters: dict[str, Any]) -> Any:
    reader = AnswerReader(Reading(family=family, functions={"f": parameters}), lambda: b"")
    parts = reader.push(answer) + reader.flush()
    assert parts.text == "", answer
    [call] = parts.calls
    assert call.name == "f"
    return json.loads(call.arguments)


@pytest.mark.parametrize("name", OWN)
@pytest.mark.parametrize("kind", SCHEMAS)
def test_what_the_grammar_allows_is_valid_by_the_schema(grammars, name, kind):
    schema = SCHEMAS[kind]
    plan = call_plan(tools_of(schema), BY_NAME[name], "", None)
    assert plan.family is BY_NAME[name]
    whole = schema if "additionalProperties" in schema else {**schema, "additionalProperties": True}
    found = [text for seed in range(5) if (text := grammars.random_text(plan.constraint, seed, 1500)) is not None]
    assert found
    for answer in found:
        read = arguments(plan.family, answer, schema)
        jsonschema_rs.validate(whole, read, validate_formats=True)
        assert set(read) <= {*schema["properties"], *schema.get("required", ())} or kind == "open"


@pytest.mark.parametrize("name", OWN)
def test_schemas_that_would_take_much_memory_are_refused(name):
    shared = {"a": {"enum": [f"{number}" for number in range(1000)]}}
    schema = {"properties": {f"p{number}": {"$ref": "#/$defs/a"} for number in range(60_000)}, "$defs": shared}
    with pytest.raises(ConstraintError, match="keys in the schemas of functions: expected at most 50000"):
        call_plan(tools_of(schema), BY_NAME[name], "", None)


QWEN = "<tool_call>\n<function=f>\n{}</function>\n</tool_call>"


def qwen(**values: str) -> str:
    return QWEN.format("".join(f"<parameter={k}>\n{value}\n</parameter>\n" for k, value in values.items()))


def test_a_models_own_way_of_writing_is_what_the_grammar_takes(grammars):
    def takes(schema: dict[str, Any], answer: str) -> bool:
        constraint = call_plan(tools_of(schema), BY_NAME["qwen_coder"], "", None).constraint
        assert constraint is not None
        return grammars.takes(constraint, answer)

    properties: dict[str, Any] = {"city": {"type": "string"}, "days": {"type": "integer"}, "what": {}}
    schema = {"type": "object", "properties": properties, "required": ["city"]}
    assert takes(schema, qwen(city="New\n  York <b> </param", days="3"))
    assert takes(schema, qwen(city="", what="anything"))
    assert not takes(schema, qwen(days="3"))
    assert not takes(schema, qwen(city="a", days="three"))
    assert not takes(schema, qwen(days="3", city="a")), "they come in the order of the schema"
    assert not takes(schema, qwen(city="a</parameter>b")), "it would be read as its end"
    assert not takes(schema, qwen(city="a", other="b"))
    assert takes({**schema, "additionalProperties": True}, qwen(city="a", other="b"))
    assert not takes({**schema, "additionalProperties": True}, qwen(city="a", days="x"))
    optional = {"properties": {"a": {"anyOf": [{"type": "string"}, {"type": "null"}]}}}
    assert takes(optional, qwen(a="as it is")) and takes(optional, qwen(a="null")) and takes(optional, qwen())


@pytest.mark.parametrize(
    ("property", "message"),
    [
        ({"type": "string", "format": "ipv6"}, "format 'ipv6': not supported here: expected date, time"),
        ({"type": "string", "allOf": []}, "allOf: not supported for a string"),
        ({"type": "string", "enum": ["</parameter>"]}, "no value can be written"),
        ({"type": "array", "items": {"$ref": "#/properties/a"}}, r"\$ref '#/properties/a': expected one that"),
    ],
)
def test_what_cannot_be_written_between_tags_is_forced_as_json_or_refused(grammars, property, message):
    schema = {"type": "object", "properties": {"a": property}}
    assert call_plan(tools_of(schema), BY_NAME["qwen_coder"], "", None).family is FORCED
    with pytest.raises(ConstraintError, match=message):
        call_plan(tools_of(schema, "auto"), BY_NAME["qwen_coder"], "", None)
    assert call_plan(tools_of(schema, "auto", strict=False), BY_NAME["qwen_coder"], "", None).constraint is None


@pytest.mark.parametrize("name", ["qwen_coder", "gemma", "olmo3", "hermes"])
def test_what_is_required_and_has_no_schema_of_its_own_is_an_additional_property(grammars, name):
    schema = {"type": "object", "required": ["b"], "additionalProperties": {"type": "integer", "maximum": 9}}
    for whole in (schema, {"type": "object", "properties": {"o": schema}, "required": ["o"]}):
        plan = call_plan(tools_of(whole), BY_NAME[name], "", None)
        found = [text for seed in range(6) if (text := grammars.random_text(plan.constraint, seed, 600)) is not None]
        assert found
        for answer in found:
            jsonschema_rs.validate(whole, arguments(plan.family, answer, whole))
    contradictory = {**schema, "additionalProperties": False}
    if name != "hermes":
        with pytest.raises(ConstraintError, match="required: additionalProperties = false does not allow 'b'"):
            call_plan(tools_of(contradictory, "auto"), BY_NAME[name], "", None)


@pytest.mark.parametrize("name", ["qwen_coder", "gemma", "lfm2", "hermes"])
def test_what_stands_beside_a_reference_is_obeyed(grammars, name):
    property = {"$ref": "#/$defs/s", "maxLength": 1, "description": "said with the reference"}
    defs = {"s": {"type": "string", "maxLength": 3}}
    schema = {"type": "object", "properties": {"a": property}, "required": ["a"], "$defs": defs}
    plan = call_plan(tools_of(schema), BY_NAME[name], "", None)
    for seed in range(8):
        answer = grammars.random_text(plan.constraint, seed, 1500)
        assert answer is not None
        jsonschema_rs.validate(schema, arguments(plan.family, answer, schema))
    plain = {**schema, "properties": {"a": {"$ref": "#/$defs/s", "description": "alone"}}}
    assert call_plan(tools_of(plain), BY_NAME[name], "", None).family is BY_NAME[name]
    whole = {"$ref": "#/$defs/w", "required": ["a"], "$defs": {**defs, "w": {"properties": {"a": {"const": "1"}}}}}
    whole_plan = call_plan(tools_of(whole), BY_NAME[name], "", None)
    for seed in range(8):
        answer = grammars.random_text(whole_plan.constraint, seed, 1500)
        if answer is not None and whole_plan.family is BY_NAME[name]:
            jsonschema_rs.validate(whole, arguments(whole_plan.family, answer, whole))


@pytest.mark.parametrize("key", ["anyOf", "$ref", "minProperties", "propertyNames"])
def test_schemas_that_do_not_list_their_members_are_forced_as_json(key):
    schema = {"type": "object", key: "#/$defs/none"}
    assert call_plan(tools_of(schema), BY_NAME["glm"], "", None).family is FORCED


@pytest.mark.parametrize("name", ["qwen_coder", "seed", "minimax", "glm", "dsml", "gemma", "lfm2", "kimi", "llama"])
def test_strict_calls_in_free_text(grammars, name):
    schema = {"type": "object", "properties": {"a": {"type": "integer", "maximum": 9}}, "required": ["a"]}
    family = BY_NAME[name]
    plan = call_plan(tools_of(schema, "auto"), family, "", None)
    assert plan.constraint is not None
    assert grammars.takes(plan.constraint, 'Words, <b>, {"json": 1} and [1].')
    begin = family.format.begins[0]
    assert not grammars.takes(plan.constraint, f"{begin}something")
    forced = call_plan(tools_of(schema), family, "", None).constraint
    for seed in range(4):
        answer = grammars.random_text(forced, seed, 2000)
        assert answer is not None and grammars.takes(plan.constraint, answer)
        assert not grammars.takes(plan.constraint, answer.replace("f", "g", 1) if name == "llama" else begin + "g")


def test_without_a_marker_only_what_would_be_read_as_a_call_must_be_one(grammars):
    constraint = call_plan(tools_of({}, "auto"), BY_NAME["llama"], "", None).constraint
    call = '{"name": "f", "parameters": {}}'
    for text in ("", "Hm", '{"city": "Bern", "name": "f"}', "[1]", "{}", '{"na', '[{"city": 1}]', call, "\n{",
                 f"<|python_tag|>{call}"):  # fmt: skip
        assert grammars.takes(constraint, text), text
    for text in ('{"name": "f", "parameters": 5}', '{"parameters": {}, "name": "f"}', f"[{call}]", f"\n{call}",
                 '{"n\\u0061me": "f"}', '{"function": {}}', "<|python_tag|>print()",
                 "So: <|python_tag|>" + call):  # fmt: skip
        assert not grammars.takes(constraint, text), text
