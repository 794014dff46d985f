"""What answers must look like so that they are calls of tools: a grammar for each family, in its own format."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from ...grammar.constraint import Constraint, Either, JsonSchema, Regex, Row, Tag, Tags, Text
from .members import lists_members
from .tag_writing import TagStyle

MOST_CALLS = 16  # of an answer that must be calls
_NAME = "NAME"
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
    opening: str = ""  # a regular expression: text without a trigger that begins so would be read as a call
    markers: tuple[str, ...] = ()  # that calls may follow without it
    inner: str = ""  # the beginning of what is a call in text also without what is around it
    inner_end: str = ""

    def calls(self, schemas: Mapping[str, Mapping[str, Any]], most: int) -> Constraint:
        """An answer of calls, at least one. `schemas`: of the parameters of each function."""
        most = 1 if self.is_single else most
        calls = Tags(self._tags(schemas), separator=self.separator, least=1, most=most)
        return Tag(self.before, calls, self.after) if self.before else calls

    def calls_in_text(self, schemas: Mapping[str, Mapping[str, Any]], parallel: bool) -> Constraint | None:
        """Text in which what begins like a call is one; None where that cannot be said."""
        most = None if parallel else 1
        if self.trigger is None:
            return self._calls_or_text(schemas, parallel) if self.opening else None
        tags, triggers = self._tags(schemas), [self.trigger]
        if self.before:
            calls = Tags(tags, separator=self.separator, least=1, most=most)
            tags = [Tag(self.before, calls, self.after)]
        if self.inner:
            begin = self.begin[self.begin.index(self.inner) :]
            tags = [*tags, *(replace(self, begin=begin, end=self.inner_end)._tags(schemas))]
            triggers.append(self.inner)
        return Tags(tags, triggers, most=1 if self.before else most)

    def _calls_or_text(self, schemas: Mapping[str, Mapping[str, Any]], parallel: bool) -> Constraint:
        """Calls from the beginning on, or text that neither begins like one nor has a marker of one."""
        calls = self.calls(schemas, MOST_CALLS if parallel else 1)
        markers = [f"{_ANY}{re.escape(marker)}{_ANY}" for marker in self.markers]
        text = Text(excluded=[f"{self.opening}{_ANY}", *markers])
        return Either([calls, *(Row([marker, calls]) for marker in self.markers), text])

    def _tags(self, schemas: Mapping[str, Mapping[str, Any]]) -> list[Tag]:
        return [
            Tag(self.begin.replace(_NAME, name), self.arguments(schema), self.end) for name, schema in schemas.items()
        ]


def _json_object(name: str = "name", arguments: str = "arguments") -> str:
    return f'{{"{name}": "{_NAME}", "{arguments}": '


OBJECT = _json_object()
HERMES = Writing(f"<tool_call>\n{OBJECT}", "}\n</tool_call>", "<tool_call>", "\n")
_KEYS = "name|tool_name|arguments|parameters|args|function|type|id|index|tool_call_id"  # of a CallObject
_BARE_OPENING = rf'[ \t\r\n]*(?:\[[ \t\r\n]*)?\{{[ \t\r\n,]*"(?:(?:{_KEYS})"|[^"\\]*\\)'
LLAMA = Writing(
    _json_object(arguments="parameters"), "}", is_single=True, opening=_BARE_OPENING, markers=("<|python_tag|>",)
)
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


_QWEN_STYLE = TagStyle("<parameter=KEY>", "</parameter>", around="\n", after="\n")
QWEN_CODER = Writing(
    f"<tool_call>\n<function={_NAME}>\n", "</function>\n</tool_call>", "<tool_call>", "\n",
    arguments=_QWEN_STYLE.arguments, inner="<function=", inner_end="</function>",
)  # fmt: skip
SEED = Writing(
    f"<function={_NAME}>\n", "</function>\n", "<seed:tool_call>", before="<seed:tool_call>\n",
    after="</seed:tool_call>", arguments=TagStyle("<parameter=KEY>", "</parameter>", after="\n").arguments,
    inner="<function=", inner_end="</function>",
)  # fmt: skip
MINIMAX = Writing(
    f'<invoke name="{_NAME}">\n', "</invoke>\n", "<minimax:tool_call>", before="<minimax:tool_call>\n",
    after="</minimax:tool_call>", arguments=TagStyle('<parameter name="KEY">', "</parameter>", after="\n").arguments,
    inner='<invoke name="', inner_end="</invoke>",
)  # fmt: skip
GLM = Writing(
    f"<tool_call>{_NAME}\n", "</tool_call>", "<tool_call>", "\n",
    arguments=TagStyle("<arg_key>KEY</arg_key>\n<arg_value>", "</arg_value>", after="\n").arguments,
)  # fmt: skip
GLM_DENSE = Writing(
    f"<tool_call>{_NAME}", "</tool_call>", "<tool_call>",
    arguments=TagStyle("<arg_key>KEY</arg_key><arg_value>", "</arg_value>").arguments,
)  # fmt: skip


def dsml(around: str) -> Writing:
    """DeepSeek's markup language. `around`: the tag around all calls."""
    style = TagStyle('<｜DSML｜parameter name="KEY" string="IS_STRING">', "</｜DSML｜parameter>", after="\n")
    begin = f"<｜DSML｜{around}>"
    return Writing(
        f'<｜DSML｜invoke name="{_NAME}">\n', "</｜DSML｜invoke>\n", begin, before=f"{begin}\n",
        after=f"</｜DSML｜{around}>", arguments=style.arguments,
        inner='<｜DSML｜invoke name="', inner_end="</｜DSML｜invoke>",
    )  # fmt: skip


def _numbered(schema: Mapping[str, Any]) -> Constraint:
    return Row([Regex("[0-9]{1,4}"), "<|tool_call_argument_begin|>", json_arguments(schema)])


KIMI = Writing(
    f"<|tool_call_begin|>functions.{_NAME}:", "<|tool_call_end|>", "<|tool_calls_section_begin|>",
    before="<|tool_calls_section_begin|>", after="<|tool_calls_section_end|>", arguments=_numbered,
)  # fmt: skip


def listed(begin: str, end: str = "") -> Writing:
    """A list of objects after a marker."""
    return Writing(OBJECT, "}", begin, ", ", before=f"{begin}[", after=f"]{end}")
