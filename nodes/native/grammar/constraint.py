"""What an answer must look like. Lark text is made of it in lark.py."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

# One space, or a new line with its indentation. Of unbounded whitespace some models write nothing else any more.
WHITESPACE = r" |\n[ \t]{0,64}"


@dataclass(frozen=True, slots=True)
class JsonSchema:
    """One JSON value that is valid by a schema, draft 2020-12."""

    schema: dict[str, Any] | bool
    whitespace: str = WHITESPACE  # a regular expression, wherever JSON allows whitespace; empty: none


@dataclass(frozen=True, slots=True)
class Regex:
    """Text that a regular expression matches as a whole."""

    pattern: str


@dataclass(frozen=True, slots=True)
class Choices:
    """One of several texts."""

    texts: Sequence[str]


@dataclass(frozen=True, slots=True)
class Lark:
    """Text by a context-free grammar in llguidance's kind of Lark; its first rule is `start`."""

    text: str


@dataclass(frozen=True, slots=True)
class Ebnf:
    """Text by a context-free grammar in GBNF, llama.cpp's EBNF; its first rule is `root`."""

    text: str


@dataclass(frozen=True, slots=True)
class Tag:
    """Something between two fixed texts, such as a tool call. Special tokens may be written in these by their names."""

    begin: str
    content: "Constraint"
    end: str = ""


@dataclass(frozen=True, slots=True)
class Tags:
    """Tags one after another, such as tool calls.

    `triggers`: empty, there is nothing but tags. Else free text may stand before, between and behind them, and wherever
    one of the triggers is written, a tag that begins with it must follow.
    """

    tags: Sequence[Tag]
    triggers: Sequence[str] = ()
    separator: str = ""  # between tags, where there is no free text
    least: int = 0
    most: int | None = None


@dataclass(frozen=True, slots=True)
class After:
    """Free text up to and with `marker`, such as `</think>`, then maybe some whitespace, then `content`."""

    marker: str
    content: "Constraint"
    begin: str | None = None  # text that the free text begins with, such as `<think>`; without it comes `content` alone


@dataclass(frozen=True, slots=True)
class Either:
    """One of several constraints."""

    options: Sequence["Constraint"]


@dataclass(frozen=True, slots=True)
class Text:
    """Free text up to and with `end`, which the text before it does not have.

    `patterns`: regular expressions that all match the text as a whole. `excluded`: those that do not.
    """

    end: str = ""
    patterns: Sequence[str] = ()
    excluded: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Row:
    """One after another. A string is fixed text, in which special tokens may be written by their names."""

    parts: Sequence["Constraint | str"]


@dataclass(frozen=True, slots=True)
class Items:
    """Arguments in their order, of which some may be missing.

    Each comes with whether it must be there. `more`: what may follow them, any number of times.
    """

    items: Sequence[tuple["Constraint", bool]]
    separator: str = ""
    more: "Constraint | None" = None


Constraint: TypeAlias = JsonSchema | Regex | Choices | Lark | Ebnf | Tag | Tags | After | Either | Text | Row | Items

ANY_OBJECT = JsonSchema({"type": "object"})
