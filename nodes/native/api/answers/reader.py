"""What the text of a chat's answer is made of: what the model thinks, its words, and calls of tools.

A reader depends on the tokens alone. A second server, which is given the tokens that a first one has told, goes on with
the same indices and without a second id.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..reasoning.splitter import ThinkingSplitter
from ..reasoning.tags import Tags
from ..tools.families import Family
from ..tools.pieces import Arguments, CallParser, CallStart, Piece, Text, Thought

_LETTERS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """How the answers to one request are read."""

    tags: Tags | None = None  # around what the model thinks; None: it is not looked for
    within: bool = False  # answers begin within the tags
    tells_thoughts: bool = True
    thoughts_at_once: bool = True  # they are told as they come, not when the thinking ends
    family: Family | None = None  # how calls are written; None: they are not looked for
    functions: Mapping[str, Any] = field(default_factory=dict)  # that may be called: the schemas of their parameters
    one_call: bool = False  # the answer ends with its first call
    head: str = ""  # of a message that the prompt ends with, where the family's answers are framed

    @property
    def markers(self) -> frozenset[str]:
        """What must be seen of the text, also where it is a special token."""
        tags = frozenset((self.tags.begin, self.tags.end)) if self.tags else frozenset[str]()
        return tags | (self.family.markers if self.family else frozenset())

    @property
    def is_plain(self) -> bool:
        """Whether the text is the answer."""
        return self.tags is None and self.family is None


PLAIN = Reading()


@dataclass(frozen=True, slots=True)
class CallDelta:
    """What is new of a call. Id and name come first, and once."""

    index: int
    id: str | None
    name: str | None
    arguments: str


@dataclass(frozen=True, slots=True)
class Parts:
    """What is new of an answer."""

    text: str = ""
    reasoning: str = ""
    calls: tuple[CallDelta, ...] = ()

    def __add__(self, other: "Parts") -> "Parts":
        return Parts(self.text + other.text, self.reasoning + other.reasoning, merged((*self.calls, *other.calls)))


class AnswerReader:
    """Reads the text of one answer."""

    def __init__(self, reading: Reading, number: Callable[[], bytes]) -> None:
        """`number`: what is different for each answer, and for each place in it."""
        tags, family = reading.tags, reading.family
        self._reading, self._number = reading, number
        self._frames = family is not None and family.frames
        self._splitter = (
            None
            if tags is None or self._frames
            else ThinkingSplitter(tags, within=reading.within, at_once=reading.thoughts_at_once)
        )
        self._parser: CallParser | None = family.parser(reading.functions, reading.head) if family else None
        self._held: list[str] = []  # thoughts that are told when the thinking ends
        self._says_thoughts = False  # the last text is a thought
        self._calls = 0
        self._ids: set[str] = set()
        self.finished = False  # nothing more is wanted

    @property
    def is_thinking(self) -> bool:
        """Whether what comes next is thought."""
        if self._frames and self._parser is not None:
            return self._reading.tags is not None and self._parser.is_thinking
        return self._splitter is not None and self._splitter.is_thinking

    @property
    def called(self) -> bool:
        """Whether there is a call in the answer."""
        return self._calls > 0

    def push(self, text: str) -> Parts:
        """What is certain after more text."""
        thought, said = ("", text) if self._splitter is None else self._splitter.push(text)
        return self._parts(thought, said, [] if self._parser is None else self._parser.push(said))

    def flush(self) -> Parts:
        """What was held back, once nothing follows."""
        thought, said = ("", "") if self._splitter is None else self._splitter.flush()
        pieces = [] if self._parser is None else [*self._parser.push(said), *self._parser.flush()]
        parts = self._parts(thought, said, pieces)
        return parts + Parts(reasoning=self._told([], ended=True))

    def _parts(self, thought: str, said: str, pieces: Sequence[Piece]) -> Parts:
        if self._parser is None:
            return Parts(said, thought if self._reading.tells_thoughts else "")
        texts: list[str] = []
        thoughts = [thought]
        calls: list[CallDelta] = []
        for piece in pieces:
            if self.finished:
                break
            if isinstance(piece, Text):
                texts.append(f"\n{piece.text}" if self._says_thoughts else piece.text)
                self._says_thoughts = False
            elif isinstance(piece, Thought):
                self._says_thoughts = self._reading.tags is None
                (texts if self._says_thoughts else thoughts).append(piece.text)
            elif isinstance(piece, CallStart):
                calls.append(self._begin(piece))
            elif isinstance(piece, Arguments):
                calls.append(CallDelta(self._calls - 1, None, None, piece.text))
            else:
                self.finished = self._reading.one_call
        return Parts("".join(texts), self._told(thoughts, ended=not self.is_thinking), merged(calls))

    def _told(self, thoughts: Sequence[str], *, ended: bool) -> str:
        """What is told of these thoughts now. `ended`: no others follow at once."""
        if not self._reading.tells_thoughts:
            return ""
        self._held += thoughts
        if self._frames and not self._reading.thoughts_at_once and not ended:
            return ""
        told, self._held = "".join(self._held), []
        return told

    def _begin(self, start: CallStart) -> CallDelta:
        assert self._reading.family is not None
        index, self._calls = self._calls, self._calls + 1
        id = start.id
        if id is None or id in self._ids:  # some models count their calls, and may count wrongly
            id = call_id(self._number(), index, self._reading.family.id_length)
        self._ids.add(id)
        return CallDelta(index, id, start.name, "")


def merged(deltas: Iterable[CallDelta]) -> tuple[CallDelta, ...]:
    """One delta for each call."""
    calls: dict[int, list[CallDelta]] = {}
    for delta in deltas:
        calls.setdefault(delta.index, []).append(delta)
    return tuple(
        CallDelta(index, parts[0].id, parts[0].name, "".join(part.arguments for part in parts))
        for index, parts in calls.items()
    )


def call_id(number: bytes, index: int, length: int) -> str:
    """The id of a call. Templates of Mistral's models want 9 letters and digits, others have no wishes."""
    digest = hashlib.blake2b(number + index.to_bytes(4, "big")).digest()
    letters = "".join(_LETTERS[byte % len(_LETTERS)] for byte in digest[:length])
    return letters if length < len("call_") * 2 else f"call_{letters}"
