"""JSON schemas: what is taken gives valid texts only, and what is not taken is refused by its name and place."""

import itertools
import json
from pathlib import Path

import jsonschema
import pytest

from benchmarks.api.schemas import SCHEMAS
from slurminfer.nodes.native.grammar.constraint import JsonSchema
from slurminfer.nodes.native.grammar.errors import ConstraintError
from slurminfer.nodes.native.grammar.keywords import ANNOTATIONS, FORMATS, OBEYED, REFUSED, UNDEFINED_FORMATS

CHECKER = jsonschema.Draft202012Validator.FORMAT_CHECKER


@pytest.mark.parametrize("name", SCHEMAS)
def test_whatever_a_schema_lets_through_is_valid(grammars, name):
    schema = SCHEMAS[name]
    validator = jsonschema.Draft202012Validator(schema, format_checker=CHECKER)
    texts = (grammars.random_text(JsonSchema(schema), seed) for seed in range(60))
    ended = list(itertools.islice((text for text in texts if text is not None), 12))
    assert len(ended) >= 3
    for text in ended:
        assert [error.message for error in validator.iter_errors(json.loads(text))] == [], text


def test_the_schemas_have_all_keywords_that_are_obeyed():
    text = json.dumps(list(SCHEMAS.values()))
    missing = {keyword for keyword in OBEYED if f'"{keyword}"' not in text} - {"$anchor", "$id", "$schema"}
    assert missing == set()
    assert {schema.get("format") for schema in SCHEMAS.values() if isinstance(schema, dict)} >= set(FORMATS)


def test_every_keyword_of_the_draft_is_in_one_table():
    """But for those of `format`'s own and of what a schema is written in, the meta-schemas name them all."""
    known = {*OBEYED, *ANNOTATIONS, *REFUSED}
    assert len(known) == len(OBEYED) + len(ANNOTATIONS) + len(REFUSED)
    from jsonschema_specifications import REGISTRY

    vocabularies = [uri for uri in REGISTRY if "draft/2020-12/meta/" in uri]
    keywords = {name for uri in vocabularies for name in REGISTRY.contents(uri)["properties"]}
    assert len(keywords) > 40
    assert keywords - known == set()


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        ({"not": {}}, "at /not: the keyword 'not' is not supported"),
        ({"pattern": "[^\"]"}, "at /pattern: [^\"] leaves out \" or"),
        ({"patternProperties": {"^[^\\\\a]$": {}}}, "at /patternProperties: [^"),
        ({"pattern": "[\\x00-\\x1f]"}, "at /pattern: control characters but for"),
        ({"pattern": "a\x01"}, "at /pattern: control characters but for"),
        ({"const": ["a\0b"]}, "at /const: control characters but for"),
        ({"items": {"enum": [1, {"\x1f": 1}]}}, "at /items/enum: control characters"),
        ({"properties": {"\x01": {}}}, "at /properties: control characters"),
        ({"properties": {"a": {"items": {"uniqueItems": True}}}}, "at /properties/a/items/uniqueItems: the keyword"),
        ({"$defs": {"a": {"if": True}}, "anyOf": [{"$ref": "#/$defs/a"}]}, "at /$defs/a/if: the keyword 'if'"),
        ({"minLenght": 1}, "at /minLenght: JSON Schema has no keyword 'minLenght'"),
        ({"items": {"format": "iri"}}, "at /items/format: 'iri' is not supported: expected date-time, "),
        ({"properties": {"a": {"items": {"type": "strin"}}}}, "at /properties/a/items: Invalid type: strin"),
        ({"properties": {"a": {"type": "string", "pattern": "["}}}, "at /properties/a: regex parse error"),
        ({"properties": {"a": {"type": "string", "pattern": "a(?=b)"}}}, "look-around"),
        ({"oneOf": [{"type": "integer"}, {"minimum": 2}]}, "oneOf constraints are not supported"),
        ({"$ref": "https://example.org/x"}, "Resource 'https://example.org/x' is not present"),
        ({"$ref": "#/$defs/a"}, "Pointer '/$defs/a' does not exist"),
        ({"properties": []}, "at /properties: expected an object of schemas"),
        ({"anyOf": {"a": 1}}, "at /anyOf: expected a list of schemas"),
        ({"items": [{}]}, "at /items: expected a schema, an object or true or false"),
        ({"properties": {"a": 1}}, "at /properties/a: expected a schema"),
        ({"type": "object", "minProperties": 2}, "at /minProperties: 2 is not supported"),
        ({"type": "integer", "minimum": 3, "maximum": 1}, "Unsatisfiable schema"),
        ({"type": "integer", "minimum": 1e20}, "at /minimum: 1e+20 is not supported for integers"),
        ({"items": {"type": ["integer", "null"], "maximum": -(2**63)}}, "at /items/maximum: -9223372036854775808 is"),
        (False, "Unsatisfiable schema"),
        ({"enum": []}, "Unsatisfiable schema"),
        ({"x-guidance": {"lenient": True}, "not": {}}, "at /not: the keyword 'not' is not supported"),
    ],
)  # fmt: skip
def test_what_is_not_obeyed_is_refused_with_its_place(grammars, schema, said):
    with pytest.raises(ConstraintError) as refused:
        grammars.compile(JsonSchema(schema))
    assert said in str(refused.value)
    assert "%llguidance" not in str(refused.value)


@pytest.mark.parametrize(
    "schema",
    [{"const": "\\u0001\n\t\x7f"},
     {"pattern": "[^\\x00-\\x1f\"]"}, {"pattern": "[\\x00-\\x7f]"}, {"pattern": "\\s\n"},
     {"uniqueItems": False, "type": "array", "maxItems": 1}, {"type": "string", "format": "password"},
     {"type": "string", "minLength": 2.0, "maxLength": 3}, {"type": "object", "minProperties": 1.0},
     {"type": "object", "properties": {"a": {}, "b": {}}, "required": ["a", "b"], "minProperties": 2}],
)  # fmt: skip
def test_what_asks_for_nothing_more_is_taken(grammars, schema):
    grammars.compile(JsonSchema(schema))


def test_a_name_cannot_be_written_in_another_way(grammars):
    schema = JsonSchema({"type": "object", "properties": {"a": {"type": "integer"}}})
    assert grammars.takes(schema, '{"b": "x"}')
    assert not grammars.takes(schema, '{"\\u0061": "x"}')
    assert not grammars.takes(schema, '{"b": 1, "a": "x"}')


@pytest.mark.parametrize(
    ("schema", "yes", "no"),
    [
        ({"type": "number", "exclusiveMinimum": 0, "maximum": 0.5}, ["0.5", "0.0001"], ["0", "0.0", "-0"]),
        ({"allOf": [{"exclusiveMinimum": 1}, {"exclusiveMaximum": 1.5}]}, ["1.01"], ["1", "1.0", "1.5"]),
        ({"exclusiveMaximum": 0, "minimum": -0.5, "type": "number"}, ["-0.5", "-0.1"], ["0", "-0", "-0.0"]),
        ({"type": "integer", "exclusiveMinimum": 0, "exclusiveMaximum": 3}, ["1", "2"], ["0", "3"]),
        ({"type": "number", "exclusiveMinimum": 2**40}, [f"{2**40}.5", f"{2**40 + 1}"], [f"{2**40}"]),
        ({"format": "time", "pattern": "^1"}, ['"10:00:59Z"', "1"], ['"10:00:60Z"', '"00:00:00Z"']),
        ({"format": "date-time", "allOf": [{"pattern": "^2"}]}, ['"2000-01-01T10:00:59Z"'], ['"2000-01-01T10:00:60Z"']),
    ],
)  # fmt: skip
def test_the_edges_of_ranges_and_minutes(grammars, schema, yes, no):
    assert [text for text in yes if not grammars.takes(JsonSchema(schema), text)] == []
    assert [text for text in no if grammars.takes(JsonSchema(schema), text)] == []


def test_whitespace_is_bounded(grammars):
    schema = JsonSchema({"type": "array"})
    assert grammars.takes(schema, "[\n" + 64 * " " + "1 , 2]")
    assert not grammars.takes(schema, "[\n" + 65 * " " + "1]")
    assert not grammars.takes(schema, "[\n\n1]")


def test_the_page_shows_the_tables():
    page = (Path(__file__).parents[4] / "docs/engine/structured-output.md").read_text(encoding="utf-8")
    for keyword, note in OBEYED.items():
        assert f"| `{keyword}` | {note} |\n" in page
    for name in (*REFUSED, *ANNOTATIONS, *FORMATS, *UNDEFINED_FORMATS):
        assert f"`{name}`" in page
