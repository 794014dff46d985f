"""Types of columns: found from values, or from a JSON schema."""

import json

import msgspec
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from slurminfer.jobs.batch.outputs.inference import Inference, merged, type_of
from slurminfer.jobs.batch.outputs.parsed import parse, parse_as_json, schema_type
from slurminfer.jobs.batch.outputs.types import FLOAT, INT, JSON, TEXT, WIDE, Type, arrow_array, arrow_type

BIG = 1 << 53


def column(*values: object) -> tuple[Type, list]:
    """The type of a column with these values, and the values as they are written."""
    inference = Inference()
    inference.see({"a": value} for value in values)
    found = inference.types()["a"]
    return found, arrow_array(values, found).to_pylist()


@pytest.mark.parametrize(
    ("values", "type", "written"),
    [
        ((1, None, -3), pa.int64(), None),
        ((True, None), pa.bool_(), None),
        ((1, 2.5), pa.float64(), [1.0, 2.5]),
        (("é\n", ""), pa.string(), None),
        ((BIG + 1, -(1 << 63)), pa.int64(), None),
        ((BIG + 1, 0.5), pa.string(), [str(BIG + 1), "0.5"]),
        ((1 << 70, 1), pa.string(), [str(1 << 70), "1"]),
        ((True, 1), pa.string(), ["true", "1"]),
        (("1", 1), pa.string(), ['"1"', "1"]),
        (([1], [None], [], None), pa.list_(pa.int64()), None),
        (([1], ["a"]), pa.list_(pa.string()), [["1"], ['"a"']]),
        (([], None), pa.list_(pa.string()), None),
        (({"a": 1}, {"b": "x"}), pa.struct([("a", pa.int64()), ("b", pa.string())]),
         [{"a": 1, "b": None}, {"a": None, "b": "x"}]),
        (({}, None), pa.string(), ["{}", None]),
        (([{"a": 1}], {"a": 1}), pa.string(), ['[{"a":1}]', '{"a":1}']),
        (({"a": {"b": [1, "x"]}},), pa.struct([("a", pa.struct([("b", pa.list_(pa.string()))]))]),
         [{"a": {"b": ["1", '"x"']}}]),
    ],
)  # fmt: skip
def test_types_of_values(values, type, written):
    found, got = column(*values)
    assert arrow_type(found) == type
    assert got == (list(values) if written is None else written)


def test_a_column_without_values():
    inference = Inference()
    inference.see([{"a": None}, {}])
    assert inference.types()["a"].kind == "null"
    assert arrow_type(inference.types()["a"]) == pa.string()


def test_objects_with_too_many_keys_are_text():
    found, written = column(*({f"k{number}": number} for number in range(600)))
    assert found == JSON and json.loads(written[7]) == {"k7": 7}


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=12,
)


@given(st.lists(json_values, max_size=6))
def test_no_value_is_lost(values):
    found, written = column(*values) if values else (TEXT, [])
    assert all(same(value, got, found) for value, got in zip(values, written, strict=True))


def same(value, got, type: Type | None) -> bool:
    """Whether a value was written: fields of structs that it does not have are null, JSON text has it exactly."""
    if value is None or type is None:
        return got is None
    if type.kind == "json":
        return json.dumps(json.loads(got)) == json.dumps(value)
    if type.kind == "list":
        return all(same(one, other, type.item) for one, other in zip(value, got, strict=True))
    if type.kind == "struct":
        names = [field.name for field in type.fields]
        return value.keys() <= set(names) and all(
            same(value.get(field.name), got[field.name], field.type) for field in type.fields
        )
    return value == got


@given(st.lists(json_values, min_size=2, max_size=5), st.randoms())
def test_the_order_of_rows_decides_only_the_order_of_fields(values, random):
    def unordered(type: Type):
        fields = frozenset((field.name, unordered(field.type)) for field in type.fields)
        return (type.kind, unordered(type.item) if type.item else None, fields)

    def all_of(values):
        found = type_of(None)
        for value in values:
            found = merged(found, type_of(value))
        return unordered(found)

    shuffled = random.sample(values, len(values))
    assert all_of(values) == all_of(shuffled)


def test_types_are_kept_as_json():
    found, _ = column({"a": [1, 2.5], "b": {"c": None}})
    assert msgspec.json.decode(msgspec.json.encode({"x": found}), type=dict[str, Type]) == {"x": found}


NESTED = {
    "type": "object",
    "properties": {
        "label": {"enum": ["a", "b"]},
        "score": {"type": "number"},
        "count": {"type": ["integer", "null"]},
        "ok": {"type": "boolean"},
        "tags": {"type": "array", "items": {"type": "string"}},
        "people": {"type": "array", "items": {"$ref": "#/$defs/Person"}},
        "any": {},
        "either": {"anyOf": [{"type": "string"}, {"type": "integer"}]},
        "maybe": {"anyOf": [{"$ref": "#/$defs/Person"}, {"type": "null"}]},
        "map": {"type": "object", "additionalProperties": {"type": "integer"}},
        "pair": {"type": "array", "prefixItems": [{"type": "string"}, {"type": "integer"}]},
        "tree": {"$ref": "#/$defs/Tree"},
        "fixed": {"const": 3},
    },
    "required": ["label"],
    "$defs": {
        "Person": {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]},
        "Tree": {"type": "object", "properties": {"left": {"$ref": "#/$defs/Tree"}, "value": {"type": "integer"}}},
    },
}
PERSON = pa.struct([("name", pa.string())])


def test_types_of_a_schema():
    assert arrow_type(schema_type(json.dumps(NESTED))) == pa.struct(
        [
            ("label", pa.string()),
            ("score", pa.float64()),
            ("count", pa.int64()),
            ("ok", pa.bool_()),
            ("tags", pa.list_(pa.string())),
            ("people", pa.list_(PERSON)),
            ("any", pa.string()),
            ("either", pa.string()),
            ("maybe", PERSON),
            ("map", pa.string()),
            ("pair", pa.string()),
            ("tree", pa.struct([("left", pa.string()), ("value", pa.int64())])),
            ("fixed", pa.int64()),
        ]
    )


@pytest.mark.parametrize(
    ("schema", "type"),
    [
        ("true", JSON), ("{}", JSON), ('{"type": "object"}', JSON), ('{"type": "integer"}', INT),
        ('{"type": ["integer", "number"]}', FLOAT), ('{"type": ["string", "integer"]}', JSON),
        ('{"enum": ["a", 1]}', JSON), ('{"enum": [1, 9007199254740993]}', WIDE), ('{"$ref": "#"}', JSON),
        ('{"$ref": "other.json"}', JSON), ('{"$ref": "#/$defs/x"}', JSON), ('{"type": 3}', JSON),
        ('{"type": "array"}', Type("list", JSON)), ('{"allOf": [{"type": "string"}]}', TEXT),
    ],
)  # fmt: skip
def test_types_of_other_schemas(schema, type):
    assert schema_type(schema) == type


def test_answers_that_follow_a_schema():
    type = schema_type(json.dumps(NESTED))
    answer = {"label": "a", "score": 1, "count": None, "people": [{"name": "x", "age": 3}], "any": [1], "new": 0}
    found = parse(json.dumps(answer), type)
    assert (found["label"], found["score"], found["people"], found["any"]) == ("a", 1.0, [{"name": "x"}], "[1]")
    assert found["tags"] is None
    assert parse_as_json(json.dumps(answer), type) == answer
    assert pa.array([found], arrow_type(type)).to_pylist() == [found]


@pytest.mark.parametrize(
    "text",
    [None, "", "no JSON", "[]", "3", "{}", '{"label": 1}', '{"label": "a", "count": 1.5}', '{"label": "a"} more',
     '{"label": "a", "count": 99999999999999999999}', '{"label": "a", "tags": ["x", 1]}', '{"label": "\\ud800"}',
     '{"label": "a", "people": [{}]}', '{"label": "a", "any": ' + "[" * 5000 + "]" * 5000 + "}", ["a"]],
    ids=range(15),
)  # fmt: skip
def test_answers_that_do_not_follow_a_schema_are_null(text):
    type = schema_type(json.dumps(NESTED))
    assert parse(text, type) is None and parse_as_json(text, type) is None
