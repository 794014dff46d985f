"""Tokens to text, one at a time, and no half characters."""

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
        self._ids: list[int] = []  # the last ones, of which the first `_told` are told
        self._told = 0
        self._keep(_context(tokenizer, prompt))

    def push(self, token: int) -> str:
        """The text that `token` completes; empty while a character is incomplete."""
        if not self._tokenizer.is_visible(token):
            return ""
        self._ids.append(token)
        text = self._tokenizer.decode(self._ids)
        if text.endswith(_REPLACEMENT) and _unfinished(self._tokenizer, self._ids):
            return self._without_end() if len(self._ids) - self._told > _CHARACTER_BYTES else ""
        new = self._new(text)
        self._keep(self._ids[self._told :])
        return new

    def _without_end(self) -> str:
        """What was held back for an incomplete character, without that: a model may begin one after the other."""
        new = self._new(_complete(self._tokenizer, self._ids)[0])
        self._ids = self._ids[self._told :]
        told, self._told = _complete(self._tokenizer, self._ids)
        self._told_texts = told, told
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
