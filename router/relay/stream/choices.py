"""The choices of an answer: how many there are, and how several go on at slurminfer's engine, each from its tokens."""

from typing import Any

import msgspec

from .envelope import CHAT, Envelope, is_given
from .place import held_back
from .transcript import Said, Story

_MOST = 1024  # that slurminfer's engine generates for one request


def number_of_choices(envelope: Envelope) -> int:
    """How many choices an answer has: so many for each prompt."""
    return envelope.choices * _prompts(envelope)


def _prompts(envelope: Envelope) -> int:
    if envelope.kind == CHAT or not is_given(envelope.prompt):
        return 1
    prompt = msgspec.json.decode(envelope.prompt)
    return len(prompt) if isinstance(prompt, list) and not isinstance(prompt[0], int) else 1


def is_told_by_ids(story: Story, said: Said) -> bool:
    """Whether slurminfer's engine goes on exactly where a choice is: with reasoning and calls, after its own only."""
    return not said.without_ids and not (story.is_of_vllm and (said.reasoning or said.calls))


def are_finished(story: Story, count: int) -> bool:
    """Whether all of so many choices have their finish reason."""
    finished = sum(said.finish is not None for said in story.choices.values())
    return finished >= max(len(story.choices), count)


def fields_of_choices(envelope: Envelope, story: Story, count: int) -> dict[str, Any] | None:
    """The fields by which slurminfer's engine goes on with so many choices; None where it cannot."""
    if count > _MOST or not story.choices.keys() <= set(range(count)) or held_back(envelope, story):
        return None
    choices = [story.choices.get(index) or Said() for index in range(count)]
    if not all(is_told_by_ids(story, said) for said in choices):
        return None
    finished = [index for index, said in enumerate(choices) if said.finish is not None]
    return {"continue_token_ids": [said.token_ids for said in choices], "finished_choices": finished}
