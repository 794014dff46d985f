"""Which keywords of JSON Schema constrain the answer, which say nothing of it, and which are refused.

docs/engine/structured-output.md shows these tables, and a test keeps it so.
"""

from collections.abc import Mapping

# A schema is what stands under these: alone, in a list, or by name in an object.
ONE_SCHEMA = frozenset({"items", "additionalProperties"})
SCHEMA_LISTS = frozenset({"anyOf", "allOf", "oneOf", "prefixItems"})
SCHEMA_MAPS = frozenset({"properties", "patternProperties", "$defs", "definitions"})

OBEYED: Mapping[str, str] = {
    "type": "one type, or a list of types",
    "enum": "of any types",
    "const": "of any type",
    "properties": "they come in the order of the schema",
    "required": "",
    "additionalProperties": "by default any, behind the others",
    "patternProperties": "patterns that cannot match the same name",
    "minProperties": "0, 1, or no more than are `required`",
    "maxProperties": "0 or 1, unless all of `properties` are required",
    "items": "a schema, or true or false",
    "prefixItems": "",
    "minItems": "",
    "maxItems": "",
    "minLength": "",
    "maxLength": "",
    "pattern": "without look-around, back-references, `\\b` and most control characters",
    "format": "see below",
    "minimum": "",
    "maximum": "",
    "exclusiveMinimum": "",
    "exclusiveMaximum": "",
    "multipleOf": "see [limits](#limits)",
    "anyOf": "",
    "oneOf": "where no value can be valid by two of them, such as objects with a `const` that tells them apart",
    "allOf": "",
    "$ref": "into the schema itself, recursion included",
    "$defs": "",
    "definitions": "the older name of $defs",
    "$anchor": "",
    "$id": "",
    "$schema": "",
}

# Integers, also where they are written as 2.0.
COUNTS = frozenset({"minItems", "maxItems", "minLength", "maxLength", "minProperties", "maxProperties"})

# They change no value's validity.
ANNOTATIONS = frozenset(
    {"$comment", "title", "description", "default", "examples", "example", "deprecated", "readOnly", "writeOnly",
     "contentEncoding", "contentMediaType", "contentSchema", "discriminator", "externalDocs", "xml"}
)  # fmt: skip
ANNOTATION_PREFIX = "x-"  # OpenAPI's extensions

# Refused, as an answer that does not obey them is no valid one.
REFUSED = frozenset(
    {"not", "if", "then", "else", "dependentRequired", "dependentSchemas", "dependencies", "propertyNames", "contains",
     "minContains", "maxContains", "uniqueItems", "unevaluatedItems", "unevaluatedProperties", "additionalItems",
     "$dynamicRef", "$dynamicAnchor", "$recursiveRef", "$recursiveAnchor", "$vocabulary", "nullable"}
)  # fmt: skip
# ... unless they ask for nothing.
NOTHING: Mapping[str, object] = {"uniqueItems": False, "nullable": False}

FORMATS = ("date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid", "uri")
# Names by which other tools note what a string is for; JSON Schema does not define them, so that every string is valid.
UNDEFINED_FORMATS = frozenset({"password", "path", "file-path", "directory-path", "binary"})
