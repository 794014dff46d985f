"""Greedy streams of every kind that failover must get right, and of those that cannot go on."""

import random
from dataclasses import dataclass
from typing import Any

from ..router.fleet import MODEL

_TOPICS = ("rivers", "bread", "the moon", "chess", "bicycles", "rain", "trains", "bees")
_TASKS = (
    "Write a numbered list of ten facts about {}, each on a line of its own.",
    "Write a Python function about {} with a docstring and comments.",
    "Write a short story about {}.",
    "Écris un poème sur « {} » avec des émojis 🎉 et 中文字符.",
)
_WHEN_USAGE = {"stream_options": {"include_usage": True}}


@dataclass(frozen=True, slots=True)
class Question:
    """A request without its stop strings."""

    name: str
    fields: dict[str, Any]
    stops_at: float | None = None  # where in its undisturbed answer a stop string is chosen, as a part of it


def questions(count: int, tokens: int) -> list[Question]:
    """So many; each kind comes again and again, with another prompt."""
    return [_question(number, tokens) for number in range(count)]


def _question(number: int, tokens: int) -> Question:
    asked = _TASKS[number % len(_TASKS)].format(_TOPICS[number * 3 % len(_TOPICS)])
    asked = f"{number}. {asked}" if number >= len(_TASKS) * len(_TOPICS) else asked
    fields: dict[str, Any] = {"model": MODEL, "stream": True, "temperature": 0, "max_tokens": tokens - 7 * (number % 5)}
    is_chat = number % 2 == 0
    fields |= {"messages": [{"role": "user", "content": asked}]} if is_chat else {"prompt": asked + " "[: number % 3]}
    fields |= _WHEN_USAGE if number % 4 < 3 else {}
    kind = (number // 2) % 3
    if kind == 1:
        fields |= {"ignore_eos": True}
    if kind == 1 and is_chat:  # which the client itself has begun
        begun = {"role": "assistant", "content": f"About {_TOPICS[number * 3 % len(_TOPICS)]}"}
        fields["messages"].append(begun)
        fields |= {"continue_final_message": True, "add_generation_prompt": False}
    return Question("chat" if is_chat else "completion", fields, 0.8 if kind == 2 else None)


def with_stop(question: Question, answer: str, length: int = 6) -> dict[str, Any]:
    """The request; its stop string, if it is to have one, is a piece of the undisturbed answer."""
    if question.stops_at is None:
        return question.fields
    place = int(len(answer) * question.stops_at)
    piece = answer[place : place + length]
    return question.fields | {"stop": [piece, "never said by anybody"]} if piece.strip() else question.fields


def not_continuable() -> list[dict[str, Any]]:
    """Requests whose streams end with an error event if their worker is lost after the first text."""
    chat = {"model": MODEL, "stream": True, "temperature": 0, "max_tokens": 400, "ignore_eos": True,
            "messages": [{"role": "user", "content": "Tell a long story."}]}  # fmt: skip
    return [
        chat | {"logprobs": True},
        chat | {"n": 2, "temperature": 1},
        chat | {"response_format": {"type": "json_object"}},
    ]


def places(events: int, count: int, seed: int) -> list[int]:
    """After how many of a stream's events it is cut: after the first few, before the last few, and between."""
    drawn = random.Random(seed)
    found = drawn.sample([1, 2, 3, events - 3, events - 2], 2) + [drawn.randrange(1, events) for _ in range(count - 2)]
    return sorted({min(max(1, place), events - 1) for place in found})
