"""Calls whose arguments are JSON: objects with name and arguments between markers, or a name and then the arguments.

    <tool_call>{"name": "f", "arguments": {...}}</tool_call>        Hermes, Qwen
    [TOOL_CALLS][{"name": "f", "arguments": {...}}]                 Mistral
    [TOOL_CALLS]f[ARGS]{...}                                        Mistral, newer
    {"name": "f", "parameters": {...}}                              Llama, and calls that a grammar has forced

What begins like a call and is none is text again. A call that has begun stays one: its arguments are what there is.
Only what is cut behind a call, before it has a name, is left out.
"""

import re
from collections.abc import Container
from dataclasses import dataclass

from .call_object import CallObject
from .call_reader import CallReader
from .json_value import JsonValue
from .markers import first_marker, marker_at
from .pieces import Arguments, CallEnd, CallStart, Piece

_LONGEST_HEAD = 512  # characters, of a name and what stands around it
_BETWEEN = " \t\r\n,;]}"  # between calls; closing brackets too many are no text


@dataclass(frozen=True, slots=True)
class JsonFormat:
    """How a family writes calls."""

    begins: tuple[str, ...]  # markers; calls follow
    ends: tuple[str, ...] = ()
    head: re.Pattern[str] | None = None  # between a marker and the arguments: groups `name`, and maybe `id`
    is_bare: bool = False  # the answer itself may be calls, without a marker
    between: str = _BETWEEN


class JsonCalls(CallReader):
    """Reads one answer in such a format."""

    def __init__(self, format: JsonFormat, known: Container[str]) -> None:
        """`known`: the functions that there are. Without a marker, only they make a call of an object."""
        super().__init__()
        self._format, self._known = format, known
        self._markers = (*format.begins, *format.ends)
        self._step = self._content
        self._raw = ""  # what will be text if it turns out to be no call
        self._object = CallObject()
        self._value = JsonValue()
        self._at_start = format.is_bare
        self._open = self._fresh = False

    def _end(self) -> None:
        if self._raw and not self._called:
            self._to_content(self._raw + self._buffer)
        elif self._step in (self._content, self._bare_list):
            self._say(self._buffer)

    def _content(self) -> bool:
        """Text, until a call may begin."""
        if self._at_start:
            begin = self._buffer.lstrip()
            if not begin:
                return False
            if begin[0] in "{[":
                return self._begin_bare()
            self._at_start = False
        markers = self._markers if self._drops_ends else self._format.begins
        marker = self._go_to_marker(markers)
        if marker is None:
            return False
        self._buffer = self._buffer[len(marker) :]
        if marker in self._format.begins:
            self._at_start = False
            self._begin(marker)
        return True

    def _begin_bare(self) -> bool:
        self._at_start = False
        self._open, self._object = True, CallObject(self._known)
        stripped = self._buffer.lstrip()
        space, self._buffer = self._buffer[: -len(stripped)], stripped
        self._say(space)
        self._step = self._bare_list if stripped[0] == "[" else self._in_object
        return True

    def _bare_list(self) -> bool:
        inside = self._buffer[1:].lstrip()
        if not inside:
            return False
        if inside[0] != "{":
            return self._to_content("")
        self._raw, self._buffer = self._buffer[: -len(inside)], inside
        self._step = self._in_object
        return True

    def _begin(self, marker: str) -> None:
        self._raw += marker
        self._open = self._fresh = True
        self._step = self._between

    def _between(self) -> bool:
        """After a marker, or after a call."""
        stripped = self._buffer.lstrip(self._format.between)
        skipped = self._buffer[: len(self._buffer) - len(stripped)]
        if self._raw:
            self._raw += skipped
        self._buffer = stripped
        if not stripped:
            return False
        marker = marker_at(stripped, self._markers)
        if marker == "":
            return False
        if marker is not None:
            return self._take_marker(marker)
        if self._fresh and stripped[0] == "[":
            self._raw += "[" if self._raw else ""
            self._buffer = stripped[1:]
            return True
        if self._open and stripped[0] == "{":
            self._object, self._step = CallObject(), self._in_object
            return True
        if self._fresh and self._format.head is not None:
            self._step = self._head
            return True
        return self._to_content(self._raw)

    def _take_marker(self, marker: str) -> bool:
        self._buffer = self._buffer[len(marker) :]
        if marker in self._format.begins:
            self._begin(marker)
        else:
            self._raw += marker if self._raw else ""
            self._open = self._fresh = False
        return True

    def _in_object(self) -> bool:
        text, self._buffer = self._buffer, ""
        if not self._object.begun:
            self._raw += text
        pieces = self._object.push(text)
        if pieces:
            self._tell(pieces)
        if not (self._object.broken or self._object.ended):
            return False
        self._buffer = self._object.rest
        if not self._object.begun:
            return self._to_content(self._raw[: len(self._raw) - len(self._buffer)])
        if self._object.broken:
            self._pieces.append(CallEnd())
            return self._to_content("")
        self._fresh, self._step = False, self._between
        return True

    def _head(self) -> bool:
        """A name, until the arguments begin. A call without any ends with a marker."""
        assert self._format.head is not None
        marker = first_marker(self._buffer, self._markers)
        brace = self._buffer.find("{")
        ends = [place for place in (marker[0] if marker else -1, brace) if place >= 0]
        if not ends and len(self._buffer) <= _LONGEST_HEAD:
            return False
        is_short = bool(ends) and min(ends) <= _LONGEST_HEAD
        found = self._format.head.fullmatch(self._buffer[: min(ends)].strip()) if is_short else None
        if found is None:
            return self._to_content(self._raw)
        self._buffer = self._buffer[min(ends) :]
        self._tell([CallStart(found["name"], found.groupdict().get("id"))])
        if min(ends) != brace:
            self._pieces += [Arguments("{}"), CallEnd()]
            self._fresh, self._step = False, self._between
        else:
            self._value, self._step = JsonValue(), self._arguments
        return True

    def _arguments(self) -> bool:
        end = self._value.end_in(self._buffer)
        piece, self._buffer = (self._buffer, "") if end is None else (self._buffer[:end], self._buffer[end:])
        if piece:
            self._pieces.append(Arguments(piece))
        if end is None:
            return False
        self._pieces.append(CallEnd())
        self._fresh, self._step = False, self._between
        return True

    def _tell(self, pieces: list[Piece]) -> None:
        """Pieces of a call: what stood before its arguments is text no more."""
        self._pieces += pieces
        self._raw = self._space = ""
        self._called = self._drops_ends = True

    def _to_content(self, text: str) -> bool:
        """`text`, which is not in the buffer, is text after all."""
        if text:
            self._say_after_all(text)
        self._raw, self._open, self._fresh, self._step = "", False, False, self._content
        return bool(self._buffer)
