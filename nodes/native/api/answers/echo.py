"""A prompt in front of its answer, and the log-probabilities of its tokens."""

from collections.abc import Sequence
from dataclasses import dataclass

from ...engine.prompt_logprobs import PromptLogprobs
from ...tokenizer import Tokenizer
from .detokenizer import complete_text
from .tokens import Offsets


@dataclass(frozen=True, slots=True)
class Echo:
    """The prompt of one choice."""

    text: str
    tokens: Sequence[int]
    logprobs: PromptLogprobs | None = None  # whole before the first token of the answer is there


def echoed_text(tokenizer: Tokenizer, prompt: Sequence[int], *, special: bool) -> str:
    """The text of a prompt that was given as token ids, with its special tokens or without.

    A character that is not complete at its end belongs to the answer.
    """
    if not special:
        return complete_text(tokenizer, prompt)
    text, run = "", list[int]()
    for token in prompt:
        if tokenizer.is_visible(token):
            run.append(token)
        else:
            text += tokenizer.decode(run) + tokenizer.token_bytes(token).decode(errors="replace")
            run = []
    return text + complete_text(tokenizer, run)


def text_offsets(tokenizer: Tokenizer, echo: Echo) -> list[int]:
    """The character in which each token of a prompt begins, by its place in the text.

    A token that the text does not have, such as a BOS that was added, begins where the next one does.
    """
    raw, place, offsets = echo.text.encode(), 0, Offsets()
    found = []
    for token in echo.tokens:
        end = place + _length(tokenizer, token, raw, place)
        found.append(offsets.add(raw[place:end]))
        place = end
    return found


def _length(tokenizer: Tokenizer, token: int, raw: bytes, place: int) -> int:
    """How many bytes of `raw` at `place` are the token's."""
    own = tokenizer.token_bytes(token)
    if raw.startswith(own, place):
        return len(own)
    if place == 0 and own.startswith(b" ") and raw.startswith(own[1:]):  # sentencepiece writes a space before a text
        return len(own) - 1
    # A normalizer has changed the text, or it does not have the token at all.
    return min(len(own), len(raw) - place) if tokenizer.is_visible(token) else 0
