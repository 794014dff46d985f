"""Which schemas no value can be valid by two of."""

import pytest

from slurminfer.nodes.native.grammar.exclusive import are_exclusive

A = {"type": "object", "properties": {"k": {"const": "a"}, "n": {"const": 1}}, "required": ["k", "n"]}
B = {"type": "object", "properties": {"k": {"enum": ["b", "c"]}, "n": {"const": 1.0}}, "required": ["k", "n"]}
ROOT = {"$defs": {"a": A, "b": {"$ref": "#/$defs/b2"}, "b2": B, "loop": {"$ref": "#/$defs/loop"}, "x/y": A}}


def _ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/$defs/{name}"}


@pytest.mark.parametrize(
    "schemas",
    [[A, B], [_ref("a"), _ref("b")], [_ref("x~1y"), B], [{"type": "integer"}, {"type": ["string", "null"]}, A],
     [{"const": 1}, {"enum": ["1", True, None]}], [A], []],
)  # fmt: skip
def test_exclusive(schemas):
    assert are_exclusive(schemas, ROOT)


@pytest.mark.parametrize(
    "schemas",
    [
        [A, A],
        [A, {**B, "required": ["n"]}],  # k may be missing, and 1 is 1.0
        [{**A, "type": ["object", "null"]}, {**B, "type": ["object", "null"]}],
        [{"properties": A["properties"], "required": A["required"]}, {"properties": B["properties"]}],
        [{"type": "integer"}, {"type": "number"}],
        [{"type": "integer"}, {"minimum": 2}],
        [{"const": 1}, {"const": 1.0}],
        [{"const": [1]}, {"const": [2]}],  # not looked into
        [True, {"type": "integer"}],
        [_ref("loop"), _ref("a")],
        [{"type": "integer"}, _ref("nothing")],
        [{"$ref": "https://example.org"}, {"$ref": "https://example.org/2"}],
        [{"type": 3}, {"type": "string"}],
        [{"enum": list(range(1000))}, {"const": -1}],  # to compare many with many would take long
        [{**A, "required": [*A["required"], *map(str, range(1000))]}, B],
    ],
)
def test_not_plainly_exclusive(schemas):
    assert not are_exclusive(schemas, ROOT)
