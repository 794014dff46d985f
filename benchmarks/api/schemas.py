"""Schemas over all keywords that are obeyed, as people write them."""

from typing import Any

_NODE = {"type": "object", "properties": {"v": {"type": "integer"}, "next": {"$ref": "#/$defs/node"}},
         "required": ["v"], "additionalProperties": False}  # fmt: skip


def _object(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


SCHEMAS: dict[str, Any] = {
    "anything": {},
    "true": True,
    "any object": {"type": "object"},
    "string": {"type": "string"},
    "integer": {"type": "integer"},
    "number": {"type": "number"},
    "boolean": {"type": "boolean"},
    "null": {"type": "null"},
    "types": {"type": ["string", "null", "integer"]},
    "enum of texts": {"enum": ["red", "green", 'a "quoted" one', "\u00fc\U0001f389", ""]},
    "enum of mixed types": {"enum": [1, "1", None, True, [1, {"a": None}], {"b": 2.5}]},
    "const text": {"const": "yes\n"},
    "const object": {"const": {"a": [1, 2, {"b": None}]}},
    "lengths": {"type": "string", "minLength": 3, "maxLength": 6},
    "empty string": {"type": "string", "maxLength": 0},
    "pattern": {"type": "string", "pattern": r"^[A-Z]{2}-\d{4}$"},
    "pattern without anchors": {"type": "string", "pattern": "ab+c", "maxLength": 12},
    "pattern with classes": {"type": "string", "pattern": r'^[^a-z\x00-\x1f"]{1,3}[\x00-\x7f]$'},
    "pattern of unicode": {"type": "string", "pattern": "^[äöü]{1,3}🎉$"},
    "range": {"type": "integer", "minimum": -5, "maximum": 17},
    "exclusive range": {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1},
    "half open": {"type": "integer", "minimum": 1000},
    "multiple": {"type": "integer", "multipleOf": 7, "minimum": 0, "maximum": 1000},
    "multiple of a fraction": {"type": "number", "multipleOf": 0.01},
    "list": {"type": "array", "items": {"type": "integer"}, "minItems": 2, "maxItems": 4},
    "empty list": {"type": "array", "maxItems": 0},
    "tuple": {"type": "array", "prefixItems": [{"type": "string"}, {"type": "integer"}], "items": False, "minItems": 2},
    "tuple and more": {"type": "array", "prefixItems": [{"const": 1}], "items": {"type": "boolean"}, "maxItems": 4},
    "matrix": {"type": "array", "maxItems": 3, "items": {"type": "array", "maxItems": 3, "items": {"enum": [0, 1]}}},
    "person": _object(name={"enum": ["A"]}, age={"type": "integer", "minimum": 0}, mail={"type": ["null", "string"]}),
    "optional properties": {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "boolean"}},
                            "additionalProperties": False},
    "additional properties": {"type": "object", "properties": {"a": {"type": "integer"}},
                              "additionalProperties": {"type": "boolean"}},
    "pattern properties": {"type": "object", "patternProperties": {"^x_[a-z]{1,4}$": {"type": "integer"}},
                           "additionalProperties": False},
    "required without properties": {"type": "object", "required": ["id"]},
    "at least one": {"type": "object", "minProperties": 1, "additionalProperties": {"type": "integer"}},
    "at most one": {"type": "object", "maxProperties": 1, "additionalProperties": {"type": "integer"}},
    "odd names": _object(**{'a "b"\\c\n': {"type": "integer"}, "": {"const": 1}, "ü🎉": {"type": "boolean"}}),
    "any of": {"anyOf": [{"type": "integer"}, _object(kind={"const": "x"})]},
    "one of, told apart": {"oneOf": [_object(kind={"const": "cat"}, lives={"type": "integer"}),
                                     _object(kind={"const": "dog"}, good={"const": True})]},
    "one of, by reference": {"$defs": {"a": _object(kind={"const": "a"}), "b": _object(kind={"enum": ["b", "c"]})},
                             "oneOf": [{"$ref": "#/$defs/a"}, {"$ref": "#/$defs/b"}, {"type": "null"}],
                             "discriminator": {"propertyName": "kind"}},
    "all of": {"type": "object", "allOf": [{"properties": {"a": {"type": "integer"}}, "required": ["a"]},
                                           {"properties": {"b": {"type": "boolean"}}, "required": ["b"]}]},
    "reference": {"$defs": {"color": {"enum": ["red", "green"]}}, **_object(one={"$ref": "#/$defs/color"})},
    "older definitions": {"definitions": {"n": {"const": 1}}, "type": "array", "items": {"$ref": "#/definitions/n"}},
    "recursion": {"$defs": {"node": _NODE}, "$ref": "#/$defs/node"},
    "recursion of the root": {"type": "array", "items": {"$ref": "#"}, "maxItems": 2},
    "tree": {"$defs": {"t": _object(name={"enum": ["x", "y"]}, kids={"type": "array", "maxItems": 2,
                                                                     "items": {"$ref": "#/$defs/t"}})},
             "$ref": "#/$defs/t"},
    "annotations": {"title": "T", "description": "d", "type": "string", "default": "x", "examples": ["y"],
                    "maxLength": 5, "x-order": 1, "deprecated": True, "readOnly": False, "$comment": "c"},
    "reference with siblings": {"$defs": {"s": {"type": "string"}}, "$ref": "#/$defs/s", "maxLength": 4},
    **{f"format {name}": {"type": "string", "format": name} for name in
       ("date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid", "uri")},
}  # fmt: skip
