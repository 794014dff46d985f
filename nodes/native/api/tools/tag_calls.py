"""Calls that are written as tags, with a tag for each argument.

    <tool_call><function=f><parameter=a>1</parameter></function></tool_call>            Qwen3-Coder
    <tool_call>f<arg_key>a</arg_key><arg_value>1</arg_value></tool_call>                GLM
    <minimax:tool_call><invoke name="f"><parameter name="a">1</parameter></invoke></minimax:tool_call>

The values of arguments are text. They become JSON as the function's schema says: strings as they come, others once
they are complete. What begins like a call and is none is text again. Only what is cut behind a call, before it has a
name, is left out.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .arguments import as_json, types_of
from .call_reader import CallReader
from .json_value import JsonValue
from .markers import first_marker, marker_at, may_begin
from .pieces import Arguments, CallEnd, CallStart, Text
from .references import resolved

_LONGEST_TAG = 512  # characters, with the name in it
_STRING = frozenset(["string"])


@dataclass(frozen=True, slots=True)
class TagFormat:
    """How a family writes calls."""

    begins: tuple[str, ...]  # markers around calls, or the beginning of a function's tag without them
    ends: tuple[str, ...]
    function: re.Pattern[str]  # opens a call, from one of `begins` on: group `name`
    opening: str  # what must follow a marker, but for space; "": anything
    parameter: re.Pattern[str]  # opens an argument: group `key`, and maybe `string`: "true" for a string
    parameter_begin: str  # how that begins
    parameter_end: str
    function_end: str | None = None  # None: one of `ends` ends the call


class TagCalls(CallReader):
    """Reads one answer in such a format."""

    def __init__(self, format: TagFormat, schemas: Mapping[str, Any]) -> None:
        """`schemas`: of each function's parameters."""
        super().__init__()
        self._format, self._schemas = format, schemas
        self._call_ends = format.ends if format.function_end is None else (format.function_end, *format.ends)
        self._step = self._content
        self._properties: Mapping[str, Any] = {}
        self._schema: Any = None  # of the parameters of the function that is called
        self._types: frozenset[str] = frozenset()
        self._count = 0  # arguments of this call
        self._value_begun = False
        self._value, self._scanned = JsonValue(), 0  # of a value that is JSON: how much of the buffer it has followed

    def _end(self) -> None:
        while self._step == self._other and (end := self._buffer.find(self._format.parameter_end)) >= 0:
            self._take_other(end)  # its JSON is broken: a string in it never ends
            while self._step():
                pass
        if self._step == self._content or (self._step == self._open and not self._called):
            self._say(self._buffer)
        elif self._step == self._parameters and not self._buffer.startswith("<"):
            self._pieces += [Text(self._buffer)] if self._buffer else []
        elif self._step == self._string:
            self._tell(_escaped(self._value_text(self._buffer)))

    def _content(self) -> bool:
        """Text, until a call may begin."""
        ends = self._call_ends if self._drops_ends else ()
        markers = (*self._format.begins, *ends)
        marker = self._go_to_marker(markers)
        if marker is None:
            return False
        if marker in ends:
            self._buffer = self._buffer[len(marker) :]
        else:
            self._step = self._open
        return True

    def _open(self) -> bool:
        """From a marker on, until a function has its name."""
        found = self._format.function.match(self._buffer)
        if found is not None and found.end() <= _LONGEST_TAG:
            self._begin(found["name"])
            self._buffer = self._buffer[found.end() :]
            return True
        if len(self._buffer) <= _LONGEST_TAG and self._could_open():
            return False
        marker = next(m for m in self._format.begins if self._buffer.startswith(m))
        self._buffer = self._buffer[len(marker) :]
        return self._to_content(marker)

    def _could_open(self) -> bool:
        """Whether more text may still make a function's tag of what is there."""
        marker = next(m for m in self._format.begins if self._buffer.startswith(m))
        if marker.endswith(self._format.opening) and self._format.opening:
            return first_marker(self._buffer, self._call_ends) is None
        inside = self._buffer[len(marker) :].lstrip()
        opening = self._format.opening[: len(inside)]
        return inside.startswith(opening) and first_marker(inside, (*self._call_ends, marker)) is None

    def _begin(self, name: str) -> None:
        self._pieces.append(CallStart(name))
        self._space = ""
        self._called = self._drops_ends = True
        self._schema = self._schemas.get(name)
        whole = resolved(self._schema, self._schema)
        properties = whole.get("properties") if isinstance(whole, Mapping) else None
        self._properties = properties if isinstance(properties, Mapping) else {}
        self._count, self._step = 0, self._parameters

    def _parameters(self) -> bool:
        """Between arguments."""
        self._buffer = self._buffer.lstrip()
        found = self._format.parameter.match(self._buffer)
        if found is not None:
            self._buffer = self._buffer[found.end() :]
            self._begin_argument(found["key"].strip(), found.groupdict().get("string") == "true")
            return True
        end = marker_at(self._buffer, self._call_ends)
        if end:
            self._buffer = self._buffer[len(end) :]
            self._tell("}" if self._count else "{}")
            self._pieces.append(CallEnd())
            self._step = self._content
            return True
        if not self._buffer or end is not None or marker_at(self._buffer, (self._format.parameter_begin,)) is not None:
            return False
        place = self._buffer.find("<", 1)
        if place > 0:  # what is neither: not a part of any argument
            self._pieces.append(Text(self._buffer[:place]))
            self._buffer = self._buffer[place:]
        return place > 0

    def _begin_argument(self, key: str, is_string: bool) -> None:
        """`is_string`: the tag says that the value is one."""
        separator = ", " if self._count else "{"
        self._tell(f"{separator}{json.dumps(key, ensure_ascii=False)}: ")
        self._count += 1
        self._types = _STRING if is_string else types_of(self._properties.get(key), self._schema)
        self._value_begun = False
        if self._types == _STRING:
            self._tell('"')
            self._step = self._string
        else:
            self._value, self._scanned, self._step = JsonValue(), 0, self._other

    def _string(self) -> bool:
        """A string, told as it comes but for what may be its end."""
        end = self._buffer.find(self._format.parameter_end)
        if end < 0:
            held = may_begin(self._buffer, (self._format.parameter_end,))
            cut = len(self._buffer) - held
            if cut and self._buffer[cut - 1] == "\n":  # the last line's end is the tag's
                cut -= 1
            if cut:
                self._tell(_escaped(self._value_text(self._buffer[:cut])))
                self._buffer = self._buffer[cut:]
            return False
        self._tell(_escaped(self._value_text(self._buffer[:end].removesuffix("\n"))) + '"')
        return self._end_argument(end)

    def _other(self) -> bool:
        """A value that is no string: JSON, once it is complete."""
        end = self._value_end()
        return end >= 0 and self._take_other(end)

    def _take_other(self, end: int) -> bool:
        text = self._buffer[:end].removeprefix("\n").removesuffix("\n")
        self._tell(as_json(text, self._types))
        return self._end_argument(end)

    def _value_end(self) -> int:
        """The place of the tag that ends a value; -1: not there yet. Tags within strings of JSON are a part of it."""
        tag = self._format.parameter_end
        while (end := self._buffer.find(tag, self._scanned)) >= 0:
            if "string" in self._types or not self._is_in_string(end):
                return end
            self._value.end_in(tag)
            self._scanned = end + len(tag)
        return -1

    def _is_in_string(self, place: int) -> bool:
        """Whether the value at the beginning of the buffer has a string that goes on at `place`."""
        begun = self._scanned > 0
        text = self._buffer[self._scanned : place]
        text = text if begun else text.lstrip()
        if not begun and not text.startswith(("{", "[")):
            return False
        return self._value.end_in(text) is None and self._value.in_string

    def _value_text(self, text: str) -> str:
        """Text of a string, without the line's end after its tag."""
        if not self._value_begun and text:
            self._value_begun = True
            return text.removeprefix("\n")
        return text

    def _end_argument(self, end: int) -> bool:
        self._buffer = self._buffer[end + len(self._format.parameter_end) :]
        self._step = self._parameters
        return True

    def _tell(self, arguments: str) -> None:
        if arguments:
            self._pieces.append(Arguments(arguments))

    def _to_content(self, text: str) -> bool:
        """`text`, which is not in the buffer, is text after all."""
        self._say_after_all(text)
        self._step = self._content
        return bool(self._buffer)


def _escaped(text: str) -> str:
    """Text as it stands in a JSON string."""
    return json.dumps(text, ensure_ascii=False)[1:-1]
