"""The arguments of a function, one by one, for formats that write each of them by itself and not as JSON."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from ....grammar.errors import ConstraintError
from ....grammar.keywords import ANNOTATION_PREFIX, ANNOTATIONS
from ....grammar.references import MOST_HOPS, is_within, pointed_to
from ..references import resolved

_DEFINITIONS = ("$defs", "definitions")
_READ = frozenset(
    {"type", "properties", "required", "additionalProperties", "$schema", "$id", "$anchor", *_DEFINITIONS}
)
_BESIDE = frozenset({"$ref", "$schema", "$id", "$anchor", *_DEFINITIONS})  # say nothing of the value
_COMBINING = ("$ref", "allOf", "anyOf", "oneOf", "patternProperties", "unevaluatedProperties")


@dataclass(frozen=True)
class Members:
    """What an object has."""

    properties: Mapping[str, Any]  # schemas by name, in order
    required: frozenset[str]
    additional: Any  # the schema of others; False: there are none
    definitions: dict[str, Any] = field(default_factory=dict)  # that references in the schemas point to

    def whole(self, schema: Any) -> Any:
        """The schema of one member by itself, with what its references point to. Raises ConstraintError."""
        if not isinstance(schema, dict) or not _refers(schema):
            return schema
        _require_local(schema)
        if self._fault is not None:
            raise ConstraintError(self._fault)
        return {**schema, **self.definitions}

    @cached_property
    def _fault(self) -> str | None:
        """Why the definitions cannot stand anywhere else; looked for once, however many members refer to them."""
        try:
            _require_local(self.definitions)
        except ConstraintError as error:
            return str(error)
        return None


def members(schema: Mapping[str, Any]) -> Members:
    """The members of an object by its schema. Raises ConstraintError for one that does not list them."""
    whole = resolved(schema, schema)
    if not isinstance(whole, Mapping) or narrows_reference(schema, schema):
        raise ConstraintError("expected the schema of an object, or a $ref without other keywords")
    for name in whole:
        if name not in _READ and name not in ANNOTATIONS and not name.startswith(ANNOTATION_PREFIX):
            raise ConstraintError(f"{name}: not supported for arguments that the model does not write as JSON")
    properties, required = whole.get("properties") or {}, whole.get("required") or []
    if not isinstance(properties, Mapping) or not isinstance(required, list):
        raise ConstraintError("expected properties, an object, and required, a list")
    names = [name for name in required if isinstance(name, str)]
    others = whole.get("additionalProperties", True)
    unnamed: dict[str, Any] = {name: others for name in names if name not in properties}
    if unnamed and others is False:
        raise ConstraintError(f"required: additionalProperties = false does not allow {next(iter(unnamed))[:80]!r}")
    definitions = {name: schema[name] for name in _DEFINITIONS if name in schema}
    additional = whole.get("additionalProperties", False)
    return Members({**properties, **unnamed}, frozenset(names), additional, definitions)


def lists_members(schema: Mapping[str, Any]) -> bool:
    """Whether a schema itself says which members there are, so that there are no others."""
    return not any(name in schema for name in ("additionalProperties", *_COMBINING))


def narrows_reference(schema: Any, root: Any) -> bool:
    """Whether a schema, or what it refers to, says more beside a reference, which `resolved` leaves out."""
    for _ in range(MOST_HOPS):
        pointer = schema.get("$ref") if isinstance(schema, Mapping) else None
        if not is_within(pointer):
            return False
        if any(
            name not in _BESIDE and name not in ANNOTATIONS and not name.startswith(ANNOTATION_PREFIX)
            for name in schema
        ):
            return True
        schema = pointed_to(pointer, root)
    return False


def _refers(schema: Any) -> bool:
    if isinstance(schema, dict):
        return "$ref" in schema or any(map(_refers, schema.values()))
    return isinstance(schema, list) and any(map(_refers, schema))


def _require_local(schema: Any) -> None:
    """Raise ConstraintError for references that mean something else once the schema stands by itself."""
    if isinstance(schema, dict):
        pointer = schema.get("$ref")
        if isinstance(pointer, str) and not pointer.startswith(tuple(f"#/{name}/" for name in _DEFINITIONS)):
            raise ConstraintError(f"$ref {pointer[:80]!r}: expected one that begins with #/$defs/ or #/definitions/")
        for value in schema.values():
            _require_local(value)
    elif isinstance(schema, list):
        for value in schema:
            _require_local(value)
