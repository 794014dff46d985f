"""What answers must look like so that they are calls of tools."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ....grammar.constraint import Constraint, Either, JsonSchema, Row, Tag, Tags, Text
from .members import lists_members

MOST_CALLS = 16  # of an answer that must be calls
NAME = "NAME"
NAMES = "ALL_NAMES"  # in an opening: one of all of them
_ANY = "(?:.|\n)*"

Arguments = Callable[[Mapping[str, Any]], Constraint]


def json_arguments(schema: Mapping[str, Any]) -> Constraint:
    """An object with no other arguments than those that the schema names, unless it says something of others."""
    closed = {"type": "object", **schema}
    return JsonSchema({**closed, "additionalProperties": False} if lists_members(schema) else closed)


@dataclass(frozen=True, slots=True)
class Writing:
    """How a family writes one or several calls. Special tokens stand in it by their names."""

    begin: str  # up to the arguments; NAME stands for the function's
    end: str
    trigger: str | None = None  # the text after which nothing but calls comes; None: calls come without any
    separator: str = ""
    before: str = ""  # around all calls
    after: str = ""
    is_single: bool = False  # the family's templates take one call for an answer
    arguments: Arguments = json_arguments  # by the schema of a function's parameters; raises ConstraintError
    opening: str = ""  # a regular expression: text without a trigger that begins so is read as a call
    markers: tuple[str, ...] = ()  # that calls may follow without it
    inner: str = ""  # the beginning of what is a call in text also without what is around it
    inner_end: str = ""

    def calls(self, schemas: Mapping[str, Mapping[str, Any]], most: int) -> Constraint:
        """An answer of calls, at least one. `schemas`: of the parameters of each function."""
        most = 1 if self.is_single else most
        calls = Tags(self._tags(schemas), separator=self.separator, least=1, most=most)
        return Tag(self.before, calls, self.after) if self.before else calls

    def framed(self, answer: Constraint) -> Constraint:
        """An answer without calls, with what the family writes around it."""
        return answer

    def calls_in_text(self, schemas: Mapping[str, Mapping[str, Any]], parallel: bool) -> Constraint | None:
        """Text in which what begins like a call is one; None where that cannot be said."""
        most = None if parallel else 1
        if self.trigger is None:
            return self._calls_or_text(schemas, parallel) if self.opening else None
        tags, triggers = self._tags(schemas), [self.trigger]
        named = list(zip(schemas, tags, strict=True))
        if self.before:
            calls = Tags(tags, separator=self.separator, least=1, most=most)
            tags = [Tag(self.before, calls, self.after)]
        if self.inner:
            begin = self.begin[self.begin.index(self.inner) :]
            tags = [*tags, *(Tag(begin.replace(NAME, name), call.content, self.inner_end) for name, call in named)]
            triggers.append(self.inner)
        return Tags(tags, triggers, most=1 if self.before else most)

    def _calls_or_text(self, schemas: Mapping[str, Mapping[str, Any]], parallel: bool) -> Constraint:
        """Calls from the beginning on, or text that neither begins like one nor has a marker of one."""
        calls = self.calls(schemas, MOST_CALLS if parallel else 1)
        markers = [f"{_ANY}{re.escape(marker)}{_ANY}" for marker in self.markers]
        opening = self.opening.replace(NAMES, "|".join(map(re.escape, schemas)))
        text = Text(excluded=[f"(?:{opening}){_ANY}", *markers])
        return Either([calls, *(Row([marker, calls]) for marker in self.markers), text])

    def _tags(self, schemas: Mapping[str, Mapping[str, Any]]) -> list[Tag]:
        return [
            Tag(self.begin.replace(NAME, name), self.arguments(schema), self.end) for name, schema in schemas.items()
        ]
