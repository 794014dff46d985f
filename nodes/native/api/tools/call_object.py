"""A call that is written as one JSON object: {"name": "f", "arguments": {...}}, whatever the order of its keys."""

import json
from collections.abc import Container

from .json_value import JsonValue
from .literals import whole_characters
from .pieces import Arguments, CallEnd, CallStart, Piece

_NAMES = ("name", "tool_name")
_ARGUMENTS = ("arguments", "parameters", "args")
_INNER = "function"  # may hold both, as OpenAI's calls do, or be the name
_OTHERS = ("type", "id", "index", "tool_call_id")
_NO_ARGUMENTS = "{}"


class CallObject:
    """Reads one object as it comes. Arguments pass as they are written, as soon as the name is known."""

    def __init__(self, known: Container[str] | None = None) -> None:
        """`known`: the only names that make a call of it, and then no other keys are allowed; None: any name."""
        self._known = known
        self._step = self._open
        self._depth = 0
        self._key = ""
        self._value = JsonValue()
        self._held = ""  # of a value that is read whole
        self._pending: str | None = None  # arguments that came before the name
        self._told = False  # whether arguments have been
        self._pieces: list[Piece] = []
        self.begun = self.ended = self.broken = False
        self.rest = ""  # what has not been read: it comes after the object, or where it is broken

    def push(self, text: str) -> list[Piece]:
        """What is certain after more text."""
        self.rest += text
        while not (self.ended or self.broken) and self._step():
            pass
        pieces, self._pieces = self._pieces, []
        return pieces

    def _open(self) -> bool:
        if self.rest:
            self.rest, self._step = self.rest[1:], self._next_key
        return bool(self.rest)

    def _next_key(self) -> bool:
        self.rest = self.rest.lstrip(" \t\r\n,")
        if not self.rest:
            return False
        if self.rest[0] == "}":
            self._close()
            return True
        if self.rest[0] != '"':
            return self._break()
        end = JsonValue().end_in(self.rest)
        if end is None:
            return False
        key = _decoded(self.rest[:end])
        if self._known is not None and key not in (*_NAMES, *_ARGUMENTS, _INNER, *_OTHERS):
            return self._break()
        self._key, self.rest, self._step = str(key), self.rest[end:], self._colon
        return True

    def _colon(self) -> bool:
        self.rest = self.rest.lstrip()
        if not self.rest:
            return False
        if self.rest[0] != ":":
            return self._break()
        self.rest, self._step = self.rest[1:], self._begin_value
        return True

    def _begin_value(self) -> bool:
        self.rest = self.rest.lstrip()
        if not self.rest:
            return False
        if self._key == _INNER and self.rest[0] == "{":
            self.rest, self._depth, self._step = self.rest[1:], self._depth + 1, self._next_key
            return True
        self._value, self._held = JsonValue(), ""
        streams = self._key in _ARGUMENTS and self.begun and not self._told and self.rest[0] in "{["
        self._step = self._stream if streams else self._hold
        return True

    def _stream(self) -> bool:
        end = self._value.end_in(self.rest)
        piece, self.rest = (self.rest, "") if end is None else (self.rest[:end], self.rest[end:])
        self._told = True
        if piece:
            self._pieces.append(Arguments(piece))
        if end is None:
            return False
        self._step = self._next_key
        return True

    def _hold(self) -> bool:
        end = self._value.end_in(self.rest)
        piece, self.rest = (self.rest, "") if end is None else (self.rest[:end], self.rest[end:])
        self._held += piece
        if end is None:
            return False
        self._step = self._next_key
        return self._take(_decoded(self._held))

    def _take(self, value: object) -> bool:
        """Take a value that has been read whole."""
        if self._key in _NAMES or self._key == _INNER:
            if not isinstance(value, str) or not value or (self._known is not None and value not in self._known):
                return self._break()
            if not self.begun:
                self.begun = True
                self._pieces.append(CallStart(value))
                if self._pending is not None:
                    self._tell(self._pending)
        elif self._key in _ARGUMENTS:
            text = value if isinstance(value, str) else _NO_ARGUMENTS if value is None else self._held
            if self.begun:
                self._tell(text or _NO_ARGUMENTS)
            else:
                self._pending = text or _NO_ARGUMENTS
        return True

    def _tell(self, arguments: str) -> None:
        if not self._told:
            self._told = True
            self._pieces.append(Arguments(arguments))

    def _close(self) -> None:
        self.rest = self.rest[1:]
        if self._depth:
            self._depth -= 1
            return
        self.ended = True
        if self.begun:
            self._tell(_NO_ARGUMENTS)
            self._pieces.append(CallEnd())

    def _break(self) -> bool:
        self.broken = True
        return False


def _decoded(text: str) -> object:
    """The value of JSON; text that is none stays the text that it is."""
    try:
        value = json.loads(text, strict=False)
        return whole_characters(value) if isinstance(value, str) else value
    except (ValueError, RecursionError):
        return text
