"""What answers must look like so that they are calls of tools: a grammar for each family that writes JSON."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...grammar.constraint import Constraint, JsonSchema, Tag, Tags

MOST_CALLS = 16  # of an answer that must be calls
_NAME = "NAME"
# A schema with any of these says itself which arguments there are.
_OPEN = ("$ref", "additionalProperties", "allOf", "anyOf", "oneOf", "patternProperties", "unevaluatedProperties")


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

    def calls(self, schemas: Mapping[str, Mapping[str, Any]], most: int) -> Constraint:
        """An answer of calls, at least one. `schemas`: of the parameters of each function."""
        most = 1 if self.is_single else most
        calls = Tags(self._tags(schemas), separator=self.separator, least=1, most=most)
        return Tag(self.before, calls, self.after) if self.before else calls

    def calls_in_text(self, schemas: Mapping[str, Mapping[str, Any]], parallel: bool) -> Constraint | None:
        """Text in which what begins like a call is one; None where that cannot be said."""
        most = None if parallel else 1
        if self.trigger is None:
            return None
        if not self.before:
            return Tags(self._tags(schemas), [self.trigger], most=most)
        calls = Tags(self._tags(schemas), separator=self.separator, least=1, most=most)
        return Tags([Tag(self.before, calls, self.after)], [self.trigger], most=1)

    def _tags(self, schemas: Mapping[str, Mapping[str, Any]]) -> Sequence[Tag]:
        return [
            Tag(self.begin.replace(_NAME, name), JsonSchema(closed(schema)), self.end)
            for name, schema in schemas.items()
        ]


def closed(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The schema of an object with no other arguments than those it names, unless it says something of others."""
    if any(name in schema for name in _OPEN):
        return {"type": "object", **schema}
    return {"type": "object", **schema, "additionalProperties": False}


def _json_object(name: str = "name", arguments: str = "arguments") -> str:
    return f'{{"{name}": "{_NAME}", "{arguments}": '


OBJECT = _json_object()
HERMES = Writing(f"<tool_call>\n{OBJECT}", "}\n</tool_call>", "<tool_call>", "\n")
LLAMA = Writing(_json_object(arguments="parameters"), "}", is_single=True)
MISTRAL = Writing(f"[TOOL_CALLS]{_NAME}[ARGS]", "", "[TOOL_CALLS]")
MISTRAL_LIST = Writing(OBJECT, "}", "[TOOL_CALLS]", ", ", before="[TOOL_CALLS] [", after="]")
DEEPSEEK = Writing(
    f"<｜tool▁call▁begin｜>{_NAME}<｜tool▁sep｜>", "<｜tool▁call▁end｜>", "<｜tool▁calls▁begin｜>",
    before="<｜tool▁calls▁begin｜>", after="<｜tool▁calls▁end｜>",
)  # fmt: skip
DEEPSEEK_R1 = Writing(
    f"<｜tool▁call▁begin｜>function<｜tool▁sep｜>{_NAME}\n```json\n", "\n```<｜tool▁call▁end｜>",
    "<｜tool▁calls▁begin｜>", "\n", before="<｜tool▁calls▁begin｜>", after="<｜tool▁calls▁end｜>",
)  # fmt: skip
COHERE = Writing(
    f'{{"tool_call_id": "0", {_json_object("tool_name", "parameters")[1:]}', "}", "<|START_ACTION|>", ", ",
    before="<|START_ACTION|>[", after="]<|END_ACTION|>",
)  # fmt: skip
BARE = Writing(OBJECT, "}", separator=", ", before="[", after="]")  # where nothing is known of the model
BARE_SINGLE = Writing(OBJECT, "}", is_single=True)


def listed(begin: str, end: str = "") -> Writing:
    """A list of objects after a marker."""
    return Writing(OBJECT, "}", begin, ", ", before=f"{begin}[", after=f"]{end}")
