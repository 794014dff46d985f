"""Tokens to text, one at a time: no half characters, and nothing of a stop string."""

import codecs
from collections.abc import Sequence

from ...tokenizer import Tokenizer
from .tokens import begins_inside

_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
# Sentencepiece drops a leading space at the start of a text: decode with some of what stands before.
_CONTEXT_TOKENS = 5
_CHARACTER_BYTES = 4  # at most


class Detokenizer:
    """The text that continues a prompt: decode(prompt + answer) without decode(prompt).

    A character that begins in the prompt and ends in the answer belongs to the answer.
    """

    def __init__(self, tokenizer: Tokenizer, prompt: Sequence[int]) -> None:
        self._tokenizer = tokenizer
        self._keep(_context(tokenizer, prompt))

    def push(self, token: int) -> str:
        """The text that `token` completes; empty while a character is incomplete."""
        if not self._tokenizer.is_visible(token):
            return ""
        self._ids.append(token)
        text = self._tokenizer.decode(self._ids)
        if text.endswith(_REPLACEMENT) and _unfinished(self._tokenizer, self._ids):
            return ""
        new = self._new(text)
        self._keep(self._ids[self._told :])
        return new

    def flush(self) -> str:
        """What is left at the end, without the character that remained incomplete."""
        return self._new(_complete(self._tokenizer, self._ids)[0]) if len(self._ids) > self._told else ""

    def _new(self, text: str) -> str:
        """What `text`, of all tokens, adds to the text that has been told."""
        for told in self._told_texts:
            if text.startswith(told):
                return text[len(told) :]
        # Bytes that are no UTF-8 spoil the characters beside them: these have been told, and stay.
        return _complete(self._tokenizer, self._ids[self._told :])[0]

    def _keep(self, ids: list[int]) -> None:
        """Go on with `ids`, whose text has been told, as the context of what follows."""
        self._ids = ids
        text, self._told = self._tokenizer.decode(ids), len(ids)
        self._told_texts = text, text
        if text.endswith(_REPLACEMENT):  # maybe a prompt that ends in a character that the answer completes
            complete, self._told = _complete(self._tokenizer, ids)
            self._told_texts = text, complete


def complete_text(tokenizer: Tokenizer, ids: Sequence[int]) -> str:
    """The text of `ids` without a character at its end that is incomplete."""
    return _complete(tokenizer, ids)[0]


def _complete(tokenizer: Tokenizer, ids: Sequence[int]) -> tuple[str, int]:
    """`complete_text`, and how many tokens that is."""
    text, end = tokenizer.decode(ids), len(ids)
    unfinished = _unfinished(tokenizer, ids) if text.endswith(_REPLACEMENT) else 0
    if not unfinished:
        return text, end
    while end and (size := len(tokenizer.token_bytes(ids[end - 1]))) <= unfinished:
        unfinished -= size
        end -= 1
    text = tokenizer.decode(ids[:end])
    return text.removesuffix(_REPLACEMENT) if unfinished else text, end


def _unfinished(tokenizer: Tokenizer, ids: Sequence[int]) -> int:
    """The number of bytes at the end that begin a character and do not end it."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    decoder.decode(b"".join(map(tokenizer.token_bytes, ids[-_CHARACTER_BYTES:])))
    return len(decoder.getstate()[0])


def _context(tokenizer: Tokenizer, prompt: Sequence[int]) -> list[int]:
    """The last visible tokens of a prompt, from the beginning of a character on, in order."""
    context: list[int] = []
    for token in reversed(prompt):
        if not tokenizer.is_visible(token):
            continue
        context.append(token)
        if len(context) == _CONTEXT_TOKENS + _CHARACTER_BYTES - 1:
            break
        if len(context) >= _CONTEXT_TOKENS and not begins_inside(tokenizer.token_bytes(token)):
            break
    return context[::-1]


class StopStrings:
    """Looks for stop strings in a text that grows; holds back what may become one.

    A part of the text may be hidden: special tokens, which can be a stop string or a part of one and are never told.
    """

    def __init__(self, stops: Sequence[str], *, keep: bool = False) -> None:
        """`keep`: the text ends with the stop string, not before it."""
        self._stops, self._keep_stop = stops, keep
        self.found: str | None = None  # the stop string that has ended the text
        self._held = ""
        self._hidden: list[tuple[int, int]] = []  # the places in `_held`: start, stop

    def push(self, text: str, *, hidden: bool = False) -> tuple[str, bool]:
        """The text that may be told now, and whether a stop string came: then it ends before that, or with it."""
        if hidden:
            self._hidden.append((len(self._held), len(self._held) + len(text)))
        self._held += text
        found = [(place, place + len(stop)) for stop in self._stops if (place := self._held.find(stop)) >= 0]
        if found:
            start, end = min(found)
            self.found = self._held[start:end]
            return self._take(end if self._keep_stop else start), True
        keep = max((_overlap(self._held, stop) for stop in self._stops), default=0)
        return self._take(len(self._held) - keep), False

    def flush(self) -> str:
        """What was held back, once it is clear that nothing follows."""
        return self._take(len(self._held))

    def _take(self, count: int) -> str:
        """The first `count` characters that were held back, but for hidden ones."""
        told, begin = "", 0
        for start, stop in self._hidden:
            told += self._held[begin : min(start, count)]
            begin = min(stop, count)
        told += self._held[begin:count]
        self._held = self._held[count:]
        self._hidden = [(max(start - count, 0), stop - count) for start, stop in self._hidden if stop > count]
        return told


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that begins `stop`."""
    longest = min(len(text), len(stop) - 1)
    return next((length for length in range(longest, 0, -1) if text.endswith(stop[:length])), 0)
