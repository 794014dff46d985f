"""Arguments between tags, as a grammar that a model's own way of writing them is held to."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ....grammar.constraint import Constraint, Items, JsonSchema, Row, Text
from ....grammar.errors import ConstraintError
from ....grammar.keywords import ANNOTATION_PREFIX, ANNOTATIONS
from ..arguments import types_of
from ..references import resolved
from .members import Members, members, narrows_reference
from .plain_strings import plain_string

_KEY = "KEY"
_IS_STRING = "IS_STRING"
_KEYS = r'[^<>"=\s]{1,64}'  # of arguments that the schema does not name
_STRING = frozenset(["string"])
_MOST_OPTIONS = 8
_TEXT = frozenset(["string", "null"])


@dataclass(frozen=True, slots=True)
class TagStyle:
    """How one argument is written."""

    begin: str  # KEY stands for its name, IS_STRING for whether its value is a string
    end: str
    around: str = ""  # the value, on both sides
    after: str = ""

    def arguments(self, schema: Mapping[str, Any]) -> Constraint:
        """The arguments of a function. Raises ConstraintError for a schema that cannot be written so."""
        found = members(schema)
        items = [(self._argument(name, each, found), name in found.required) for name, each in found.properties.items()]
        return Items(items, more=None if found.additional is False else self._other(found))

    def _argument(self, name: str, schema: Any, of: Members) -> Constraint:
        if not name or name != name.strip() or any(character in name for character in '<>"\n'):
            raise ConstraintError(
                f'the name {name[:80]!r}: expected one without <, > and ", and without space around it'
            )
        is_plain, value = self._value(schema, of)
        return Row([self._begin(is_plain).replace(_KEY, name), value, self.after])

    def _begin(self, is_string: bool) -> str:
        return self.begin.replace(_IS_STRING, "true" if is_string else "false")

    def _value(self, schema: Any, of: Members) -> tuple[bool, Constraint]:
        """The value with its end, and whether it is a string that is written as it is."""
        root = {"definitions": of.definitions.get("definitions"), "$defs": of.definitions.get("$defs")}
        types = types_of(schema, root)
        whole = resolved(schema, root)
        narrows = narrows_reference(schema, root)
        if narrows and ("string" in types or not types):
            raise ConstraintError("$ref: not supported together with other keywords where the value may be a string")
        if types == _STRING and isinstance(whole, Mapping):
            return True, plain_string(whole, self.end, self.around)
        is_free = schema == {} or schema is True or (types <= _TEXT and _is_any_text(schema, root))
        if is_free and _IS_STRING not in self.begin:
            return False, plain_string({}, self.end, self.around)
        return False, Row([self.around, JsonSchema(of.whole(schema)), self.around, self.end])

    def _other(self, of: Members) -> Constraint:
        """An argument that the schema does not name."""
        begin, _, rest = self._begin(False).partition(_KEY)
        schema = of.additional
        value = self._value(schema, of)[1]
        key = Text(patterns=[_KEYS], excluded=[re.escape(name) for name in of.properties])
        return Row([begin, key, rest, value, self.after])


def _is_any_text(schema: Any, root: Any, depth: int = 3) -> bool:
    """Whether every text is a valid value: a string, or null where that is written. `depth`: of `anyOf` in others."""
    schema = resolved(schema, root)
    if not isinstance(schema, Mapping):
        return False
    kept = {name for name in schema if name not in ANNOTATIONS and not name.startswith(ANNOTATION_PREFIX)}
    if kept == {"type"}:
        return (types_of(schema) <= _TEXT and "string" in types_of(schema)) or schema["type"] == "null"
    name = next(iter(kept), "")
    if len(kept) != 1 or name not in ("anyOf", "oneOf") or not depth or len(schema[name]) > _MOST_OPTIONS:
        return False
    return all(_is_any_text(each, root, depth - 1) for each in schema[name])
