"""The answers of gpt-oss: messages in channels, each with a header.

    <|channel|>analysis<|message|>...<|end|><|start|>assistant<|channel|>final<|message|>...<|return|>
    ... <|start|>assistant<|channel|>commentary to=functions.f <|constrain|>json<|message|>{...}<|call|>

What is in the channel `analysis` is thought, a message to a function is a call, and all other messages are text. The
recipient may stand before the channel as well. Text where a header should be is text.
"""

import re
from collections.abc import Callable, Container
from dataclasses import dataclass
from typing import Literal

from .markers import first_marker, may_begin
from .pieces import Arguments, CallEnd, CallStart, Piece, Text, Thought

_MESSAGE, _START, _END, _CALL, _RETURN = "<|message|>", "<|start|>", "<|end|>", "<|call|>", "<|return|>"
_CHANNEL, _CONSTRAIN = "<|channel|>", "<|constrain|>"
MARKERS = (_START, _END, _CALL, _RETURN, _MESSAGE, _CHANNEL, _CONSTRAIN)
_ENDS = (_END, _CALL, _RETURN, _START)
_LONGEST_HEADER = 512  # characters
_ROLE = "assistant"
_RECIPIENT = re.compile(r"\bto=([^\s<]+)")
_NAMESPACE = "functions."
_OTHERS = ("assistant", "user", "all")  # recipients that are no functions
_BETWEEN = "\n"  # two messages of a kind

Kind = Literal["thought", "text", "call"]


@dataclass(frozen=True, slots=True)
class HarmonyFormat:
    """All answers are of this one format, also those to requests without tools."""

    begins: tuple[str, ...] = MARKERS
    ends: tuple[str, ...] = ()


class Harmony:
    """Reads one answer."""

    def __init__(self, known: Container[str], head: str = _ROLE) -> None:
        """
        Args:
            known: the functions that there are; if there are none, calls are text.
            head: the end of the prompt, from where the message began that the answer goes on with.
        """
        self._has_functions = bool(known)
        self._buffer = ""
        self._pieces: list[Piece] = []
        self._step: Callable[[], bool] = self._header
        self._kind: Kind = "text"
        self._had = {"thought": False, "text": False}
        self._is_first = False  # what comes next is the first of its message
        self._told = False  # whether arguments have been
        self.push(head)
        self._pieces = []

    @property
    def is_thinking(self) -> bool:
        """Whether the next text is thought."""
        return self._step == self._body and self._kind == "thought"

    def push(self, text: str) -> list[Piece]:
        """What is certain after more text."""
        self._buffer += text
        while self._step():
            pass
        return self._taken()

    def flush(self) -> list[Piece]:
        """What was held back, once nothing follows."""
        if self._step == self._body:
            self._tell(self._buffer)
        self._buffer = ""
        return self._taken()

    def _taken(self) -> list[Piece]:
        pieces, self._pieces = self._pieces, []
        return pieces

    def _header(self) -> bool:
        if _is_text(self._buffer):
            return self._begin_text()
        found = first_marker(self._buffer, (_MESSAGE, *_ENDS))
        if found is None and len(self._buffer) <= _LONGEST_HEADER + len(_MESSAGE):
            return False
        if found is None or found[0] > _LONGEST_HEADER:
            return self._begin_text()
        place, marker = found
        header, self._buffer = self._buffer[:place], self._buffer[place + len(marker) :]
        if marker == _MESSAGE:
            self._open(header)
        return True

    def _begin_text(self) -> bool:
        """There is no header where one should be."""
        self._buffer = self._buffer.removeprefix(_ROLE)
        self._begin("text")
        return True

    def _open(self, header: str) -> None:
        """A message begins."""
        recipient = _RECIPIENT.search(header)
        name = recipient[1].removeprefix(_NAMESPACE) if recipient else ""
        if name and name not in _OTHERS and self._has_functions:
            self._begin("call")
            self._told = False
            self._pieces.append(CallStart(name))
        else:
            self._begin("thought" if header.partition(_CHANNEL)[2].lstrip().startswith("analysis") else "text")

    def _begin(self, kind: Kind) -> None:
        self._kind, self._step, self._is_first = kind, self._body, True

    def _body(self) -> bool:
        found = first_marker(self._buffer, _ENDS)
        if found is None:
            cut = len(self._buffer) - may_begin(self._buffer, _ENDS)
            self._tell(self._buffer[:cut])
            self._buffer = self._buffer[cut:]
            return False
        place, marker = found
        self._tell(self._buffer[:place])
        self._buffer, self._step = self._buffer[place + len(marker) :], self._header
        if self._kind == "call":
            if not self._told:
                self._pieces.append(Arguments("{}"))
            self._pieces.append(CallEnd())
        return True

    def _tell(self, text: str) -> None:
        if not text:
            return
        if self._kind == "call":
            self._told = True
            self._pieces.append(Arguments(text))
            return
        if self._is_first and self._had[self._kind]:
            text = _BETWEEN + text
        self._is_first, self._had[self._kind] = False, True
        self._pieces.append(Thought(text) if self._kind == "thought" else Text(text))


def _is_text(header: str) -> bool:
    """Whether this can be no beginning of a header."""
    rest = header.removeprefix(_ROLE).lstrip()
    if not rest or (len(header) < len(_ROLE) and _ROLE.startswith(header)):
        return False
    return not any(
        rest.startswith(begin) or begin.startswith(rest) for begin in (_CHANNEL, _CONSTRAIN, _MESSAGE, _START, "to=")
    )


def head_of(prompt: str) -> str:
    """The end of a prompt, from where the message began that the answer goes on with."""
    return prompt.rpartition(_START)[2]


def is_within_a_message(head: str) -> bool:
    """Whether an answer goes on with the content of a message, and not with its header."""
    return _MESSAGE in head
