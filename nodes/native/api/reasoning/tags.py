"""The tags around what a model thinks, and whether an answer begins within them."""

from collections.abc import Container
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Tags:
    """The tags of one family."""

    begin: str
    end: str
    models: str  # for the documentation
    is_known_by_end: bool = True  # templates that have the end alone are of this family, too


THINKING: tuple[Tags, ...] = (
    Tags("<seed:think>", "</seed:think>", "Seed-OSS"),
    Tags("[THINK]", "[/THINK]", "Magistral, Ministral"),
    Tags("<|START_THINKING|>", "<|END_THINKING|>", "Command A, Command R7B"),
    Tags("<|channel|>analysis<|message|>", "<|end|>", "gpt-oss", is_known_by_end=False),
    Tags("<|channel>thought", "<channel|>", "Gemma 4"),
    Tags("<think>", "</think>", "Qwen3, QwQ, DeepSeek-R1 and its distilled models, GLM-4.5, MiniMax-M2, SmolLM3"),
)


def tags_of(template: str, tokens: Container[str]) -> Tags | None:
    """The tags that a model uses, by its chat template or, where that has none, by its added tokens."""
    written = (tags for tags in THINKING if tags.begin in template or (tags.is_known_by_end and tags.end in template))
    known = (tags for tags in THINKING if tags.begin in tokens and tags.end in tokens)
    return next(written, None) or next(known, None)


def begins_within(tags: Tags, prompt: str, continued: str = "") -> bool:
    """Whether the answer to `prompt`, as rendered, begins within the tags: the template or the client has opened them.

    `continued`: the content of the message that the model is to continue, at the prompt's end.
    """
    return prompt.rstrip().endswith(tags.begin) or continued.rfind(tags.begin) > continued.rfind(tags.end)
