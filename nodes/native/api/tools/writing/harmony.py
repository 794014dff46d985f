"""How gpt-oss writes an answer: messages in channels, of which the last one is a call or the answer itself."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ....grammar.constraint import Constraint, Either, Items, Row, Text
from .writing import NAME, Writing

_NEXT = "<|start|>assistant"
_FINAL = "<|channel|>final<|message|>"


def _message(channel: str) -> Constraint:
    """One that others follow."""
    return Row([f"<|channel|>{channel}<|message|>", Text("<|end|>"), _NEXT])


_THOUGHTS = Items((), more=_message("analysis"))
_BEFORE = Items((), more=Either([_message("analysis"), _message("commentary")]))


@dataclass(frozen=True, slots=True)
class HarmonyWriting(Writing):
    """Answers begin behind the role, which the prompt ends with."""

    def calls(self, schemas: Mapping[str, Mapping[str, Any]], most: int) -> Constraint:
        return Row([_THOUGHTS, Either(self._tags(schemas))])

    def calls_in_text(self, schemas: Mapping[str, Mapping[str, Any]], parallel: bool) -> Constraint | None:
        return Row([_BEFORE, Either([*self._tags(schemas), Row([_FINAL, Text()])])])

    def framed(self, answer: Constraint) -> Constraint:
        return Row([_THOUGHTS, _FINAL, answer])


def within_a_message(answer: Constraint) -> Constraint:
    """An answer that goes on with a message, and in messages after that is as it must be."""
    return Row([Text("<|end|>"), _NEXT, answer])


HARMONY = HarmonyWriting(
    f"<|channel|>commentary to=functions.{NAME} <|constrain|>json<|message|>", "<|call|>", is_single=True
)
