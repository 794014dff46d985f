"""What generated text turns out to be: words for the user, thoughts, or a call of a tool."""

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Text:
    """Words for the user."""

    text: str


@dataclass(frozen=True, slots=True)
class Thought:
    """What the model thinks, in formats that tell it apart themselves."""

    text: str


@dataclass(frozen=True, slots=True)
class CallStart:
    """A call begins. What its arguments are follows."""

    name: str
    id: str | None = None  # where the model itself has written one


@dataclass(frozen=True, slots=True)
class Arguments:
    """The next piece of the JSON that is the arguments of the call that began last."""

    text: str


@dataclass(frozen=True, slots=True)
class CallEnd:
    """The call is complete."""


Piece = Text | Thought | CallStart | Arguments | CallEnd


class CallParser(Protocol):
    """Reads one answer. It depends on the text alone, not on how that is cut into pieces."""

    @property
    def is_thinking(self) -> bool:
        """Whether the next text is a thought."""

    def push(self, text: str) -> list[Piece]:
        """What is certain after more text."""

    def flush(self) -> list[Piece]:
        """What was held back, once nothing follows."""
