"""Calls that look like those of a programming language, with arguments as literals.

    [f(a=1, b="x"), g()]                                        Llama 4, Gemma 3
    <|tool_call_start|>[f(a=1, b='x')]<|tool_call_end|>         LFM2
    <function_calls>f(a=1)\\ng()</function_calls>                OLMo 3
    <|tool_call>call:f{a:1,b:<|"|>x<|"|>}<tool_call|>           Gemma 4

Each argument is told once it is complete. What begins like a call and is none is text again.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .call_reader import CallReader
from .literals import PYTHON, Notation, whole_characters
from .markers import marker_at
from .pieces import Arguments, CallEnd, CallStart
from .references import resolved

_LONGEST_HEAD = 512  # characters
_BRACKETS = {"(": 1, "[": 1, "{": 1, ")": -1, "]": -1, "}": -1}


@dataclass(frozen=True, slots=True)
class LiteralFormat:
    """How a family writes calls."""

    begins: tuple[str, ...]  # markers
    ends: tuple[str, ...]
    head: re.Pattern[str]  # opens a call: group `name`
    head_begin: re.Pattern[str]  # all that may become one with more text
    key: re.Pattern[str]  # opens an argument: group `key`
    key_begin: re.Pattern[str]
    close: str  # ends a call
    notation: Notation
    is_bare: bool = False  # the answer itself may be a list of calls of known functions, without a marker
    between: str = " \t\r\n,;[]"


class LiteralCalls(CallReader):
    """Reads one answer in such a format."""

    def __init__(self, format: LiteralFormat, schemas: Mapping[str, Any]) -> None:
        """`schemas`: of each function's parameters."""
        super().__init__()
        self._format, self._schemas = format, schemas
        self._step = self._content
        self._at_start = format.is_bare
        self._is_marked = False  # the calls stand behind a marker
        self._raw = ""  # what will be text if it turns out to be no call
        self._names: list[str] = []  # of the arguments of the function that is called
        self._count = 0  # arguments of this call
        self._key = ""
        self._place = self._depth = 0  # how far the buffer's value has been followed
        self._quote = ""
        special = [*map(re.escape, format.notation.quotes), r"[()\[\]{},]"]
        self._outside = re.compile("|".join(special))

    def _end(self) -> None:
        if self._step == self._content:
            self._say(self._buffer)
        elif self._step == self._between and not self._called:
            self._to_content(self._raw + self._buffer)

    def _content(self) -> bool:
        """Text, until a call may begin."""
        if self._at_start:
            begin = self._buffer.lstrip()
            if not begin:
                return False
            self._at_start = False
            if begin[0] == "[":
                self._raw, self._buffer = self._buffer[: -len(begin)] + "[", begin[1:]
                self._is_marked, self._step = False, self._between
                return True
        markers = (*self._format.begins, *(self._format.ends if self._drops_ends else ()))
        marker = self._go_to_marker(markers)
        if marker is None:
            return False
        self._buffer = self._buffer[len(marker) :]
        if marker in self._format.begins:
            self._at_start, self._is_marked = False, True
            self._raw, self._step = marker, self._between
        return True

    def _between(self) -> bool:
        """Before a call, or after one."""
        if not self._is_marked and self._called and self._raw == "" and self._buffer.lstrip(" \t\r\n,").startswith("]"):
            self._buffer = self._buffer.lstrip(" \t\r\n,")[1:]
            return self._to_content("")
        stripped = self._buffer.lstrip(self._format.between)
        skipped = self._buffer[: len(self._buffer) - len(stripped)]
        self._raw += skipped if self._raw else ""
        self._buffer = stripped
        if not stripped:
            return False
        markers = (*self._format.begins, *self._format.ends) if self._is_marked else ()
        marker = marker_at(stripped, markers)
        if marker == "":
            return False
        if marker is not None:
            self._buffer = stripped[len(marker) :]
            if marker in self._format.ends:
                return self._to_content(self._raw + marker if self._raw else "")
            self._raw += marker if self._raw else ""
            return True
        return self._head()

    def _head(self) -> bool:
        if len(self._buffer) <= _LONGEST_HEAD and self._format.head_begin.fullmatch(self._buffer):
            return False
        found = self._format.head.match(self._buffer)
        if found is None or found.end() > _LONGEST_HEAD:
            return self._to_content(self._raw)
        if not self._is_marked and not self._called and found["name"] not in self._schemas:
            return self._to_content(self._raw)
        self._buffer = self._buffer[found.end() :]
        self._begin(found["name"])
        return True

    def _begin(self, name: str) -> None:
        self._pieces.append(CallStart(name))
        self._raw = self._space = ""
        self._called = self._drops_ends = True
        schema = resolved(self._schemas.get(name), self._schemas.get(name))
        properties = schema.get("properties") if isinstance(schema, Mapping) else None
        self._names = [*properties] if isinstance(properties, Mapping) else []
        self._count, self._step = 0, self._arguments

    def _arguments(self) -> bool:
        """Between arguments."""
        self._buffer = self._buffer.lstrip(" \t\r\n,")
        if not self._buffer:
            return False
        if self._buffer[0] == self._format.close:
            self._buffer = self._buffer[1:]
            self._pieces += [Arguments("}" if self._count else "{}"), CallEnd()]
            self._step = self._between
            return True
        if self._buffer == "*" or self._format.key_begin.fullmatch(self._buffer):
            return False
        found = self._format.key.match(self._buffer)
        if found is not None:
            self._key, self._buffer = found["key"].strip(), self._buffer[found.end() :]
        elif self._buffer.startswith("**"):
            self._key, self._buffer = "**", self._buffer[2:]
        else:
            self._key = self._names[self._count] if self._count < len(self._names) else f"arg{self._count}"
        self._place, self._depth, self._quote, self._step = 0, 0, "", self._value
        return True

    def _value(self) -> bool:
        """A value, until what ends it has come."""
        while True:
            if self._quote:
                if not self._leave_string():
                    return False
                continue
            found = self._outside.search(self._buffer, self._place)
            if found is None:
                longest = max(map(len, self._format.notation.quotes)) - 1
                self._place = max(self._place, len(self._buffer) - longest)
                return False
            if len(self._buffer) - found.start() < self._most_needed(found[0]):
                self._place = found.start()
                return False
            if found[0] in self._format.notation.quotes:
                self._quote, self._place = found[0], found.end()
            elif found[0] in _BRACKETS and (self._depth or _BRACKETS[found[0]] > 0):
                self._depth, self._place = self._depth + _BRACKETS[found[0]], found.end()
            elif self._depth or found[0] not in (",", self._format.close):
                self._place = found.end()
            else:
                return self._take(found.start())

    def _most_needed(self, found: str) -> int:
        """Characters from its beginning on after which it is certain which quote this is."""
        return max((len(q) for q in self._format.notation.quotes if q.startswith(found)), default=1)

    def _leave_string(self) -> bool:
        """Go behind the quote that ends a string; False if it is not there yet."""
        while True:
            end = self._buffer.find(self._quote, self._place)
            escape = self._buffer.find("\\", self._place) if self._format.notation.escapes else -1
            if escape >= 0 and (end < 0 or escape < end):
                if escape + 1 >= len(self._buffer):
                    self._place = escape
                    return False
                self._place = escape + 2
                continue
            if end < 0:
                self._place = max(self._place, len(self._buffer) - len(self._quote) + 1)
                return False
            self._quote, self._place = "", end + len(self._quote)
            return True

    def _take(self, end: int) -> bool:
        text, self._buffer = self._buffer[:end], self._buffer[end:]
        value = self._format.notation.json(text)
        self._step = self._arguments
        if self._key == "**":
            members = value[1:-1] if value.startswith("{") else f'"arg{self._count}": {value}'
            if not members:
                return True
        else:
            members = f"{json.dumps(whole_characters(self._key), ensure_ascii=False)}: {value}"
        self._pieces.append(Arguments(("{" if not self._count else ", ") + members))
        self._count += 1
        return True

    def _to_content(self, text: str) -> bool:
        """`text`, which is not in the buffer, is text after all."""
        if text:
            self._say_after_all(text)
        self._raw, self._step = "", self._content
        return bool(self._buffer)


_NAME = r"[^\W\d][\w.:/-]*"
_STATEMENT = r"(?:[A-Za-z_]\w*\s*=\s*)?(?:print\s*\(\s*)?"  # what may stand before a call
_PYTHON_KEY = re.compile(r"(?P<key>[^\W\d]\w*)\s*=")
_PYTHON_KEY_BEGIN = re.compile(r"[^\W\d]\w*\s*")

_BRACED_HEAD = re.compile(r"call:(?P<name>[^\s{}:<]+)\s*\{")
_BRACED_HEAD_BEGIN = re.compile(r"c|ca|cal|call|call:[^\s{}:<]*\s*")
_BRACED_KEY_BEGIN = re.compile(r"[^:{}\[\],]*")


def pythonic(
    begins: tuple[str, ...], ends: tuple[str, ...], *, is_bare: bool = False, is_statement: bool = False
) -> LiteralFormat:
    """Calls of Python. `is_statement`: they may be assigned and printed."""
    before = _STATEMENT if is_statement else ""
    return LiteralFormat(
        begins, ends, re.compile(rf"{before}(?P<name>{_NAME})\s*\("), re.compile(rf"{before}(?:{_NAME}\s*)?"),
        _PYTHON_KEY, _PYTHON_KEY_BEGIN, ")", PYTHON, is_bare, between=" \t\r\n,;[])" if is_statement else " \t\r\n,;[]",
    )  # fmt: skip


def braced(begin: str, end: str, notation: Notation) -> LiteralFormat:
    """Calls of Gemma's."""
    quote = re.escape(notation.quotes[0])
    return LiteralFormat(
        (begin,), (end,), _BRACED_HEAD, _BRACED_HEAD_BEGIN,
        re.compile(rf"(?:{quote})?(?P<key>[^:{{}}\[\],]+?)(?:{quote})?\s*:"), _BRACED_KEY_BEGIN, "}", notation,
        between=" \t\r\n,}",
    )  # fmt: skip
