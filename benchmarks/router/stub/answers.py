"""What a stub worker answers: like a greedy model's, every next word depends on all of the text before it.

So an answer that another worker goes on with is right only if that one was given the whole text so far, once.
"""

import zlib
from dataclasses import dataclass
from typing import Any

_SYLLABLES = ("ba", "de", "ki", "lo", "mu", "na", "pe", "ri", "so", "tu", "va", "we", "xi", "yo", "zu", "fa")
WORDS = tuple(f" {a}{b}{c}" for a in _SYLLABLES for b in _SYLLABLES for c in _SYLLABLES[:4])
# Of answers: a token each, and as long as a token of a prompt. So an answer that goes on has as many tokens as the same
# answer had where it was made.
TOKENS = tuple(f" {a}{b[0]}" for a in _SYLLABLES for b in _SYLLABLES)
_END_EVERY = 211  # about one word in so many is the end of the text
CHARACTERS_PER_TOKEN = 4  # of prompts; a generated word is a token
DEFAULT_LIMIT = 16


@dataclass(frozen=True, slots=True)
class Answer:
    """A generated text: one piece for each token, and why it ended."""

    pieces: tuple[str, ...]
    finish_reason: str  # stop or length

    @property
    def text(self) -> str:
        """All of it."""
        return "".join(self.pieces)


def render(messages: list[dict[str, Any]], continues: bool) -> str:
    """The text that the model goes on with. `continues`: the last message is the beginning of the answer."""
    head = "".join(
        f"<{message['role']}>{_content(message)}</>" for message in (messages[:-1] if continues else messages)
    )
    return f"{head}<assistant>{_content(messages[-1])}" if continues else f"{head}<assistant>"


def prompt_of(request: dict[str, Any]) -> str:
    """The text that a request of either kind asks to go on with."""
    if "messages" in request:
        return render(request["messages"], bool(request.get("continue_final_message")))
    prompt = request["prompt"]
    if isinstance(prompt, list):  # token ids, or one text
        return "".join(WORDS[part % len(WORDS)] if isinstance(part, int) else str(part) for part in prompt)
    return str(prompt)


def generate(prompt: str, limit: int, stop: tuple[str, ...] = (), ignore_end: bool = False) -> Answer:
    """What follows `prompt`, up to `limit` tokens or one of the `stop` strings, which is not part of the answer."""
    state, text, pieces = zlib.crc32(prompt.encode()), "", list[str]()
    for _ in range(limit):
        if not ignore_end and state % _END_EVERY == 0:
            return Answer(tuple(pieces), "stop")
        word = TOKENS[(state >> 7) % len(TOKENS)]
        state = zlib.crc32(word.encode(), state)
        text += word
        cut = min((at for at in map(text.find, stop) if at >= 0), default=-1)
        if cut >= 0:
            return Answer(_cut(pieces, word, cut), "stop")
        pieces.append(word)
    return Answer(tuple(pieces), "length")


def answer_to(request: dict[str, Any]) -> Answer:
    """The whole answer to an OpenAI request."""
    stop = request.get("stop") or ()
    stop = (stop,) if isinstance(stop, str) else tuple(stop)
    return generate(prompt_of(request), limit_of(request), stop, bool(request.get("ignore_eos")))


def limit_of(request: dict[str, Any]) -> int:
    """Tokens that a request asks for at most."""
    return int(request.get("max_completion_tokens") or request.get("max_tokens") or DEFAULT_LIMIT)


def tokens_of(prompt: str) -> int:
    """Tokens of a prompt."""
    return max(1, len(prompt) // CHARACTERS_PER_TOKEN)


def _content(message: dict[str, Any]) -> str:
    content = message.get("content") or ""
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)


def _cut(pieces: list[str], last: str, length: int) -> tuple[str, ...]:
    """The pieces of the first `length` characters. Engines hold back what may be the beginning of a stop string.

    So the word that is cut comes with the last token, and nothing with those between.
    """
    words, ends = (*pieces, last), 0
    for number, word in enumerate(words):
        if ends + len(word) > length:
            return (*words[:number], *[""] * (len(words) - number - 1), word[: length - ends])
        ends += len(word)
    return words
