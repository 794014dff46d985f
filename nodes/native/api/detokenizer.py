"""Tokens to text, one at a time: no half characters, and nothing of a stop string."""

from collections.abc import Sequence

from ..tokenizer import Tokenizer

_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
# Sentencepiece drops a leading space at the start of a text: decode with some of what stands before.
_CONTEXT_TOKENS = 5
# A character has at most 4 bytes; whoever waits longer than this waits for bytes that are no UTF-8.
_MAX_HELD_TOKENS = 8


class Detokenizer:
    """The text that continues a prompt."""

    def __init__(self, tokenizer: Tokenizer, prompt: Sequence[int]) -> None:
        self._tokenizer = tokenizer
        self._keep(list(prompt[-_CONTEXT_TOKENS:]))

    def push(self, token: int) -> str:
        """The text that `token` completes; empty while a character is incomplete."""
        self._ids.append(token)
        text = self._tokenizer.decode(self._ids)
        held = len(self._ids) - self._told
        if text.endswith(_REPLACEMENT) and held < _MAX_HELD_TOKENS:
            return ""
        new = text[self._told_length :]
        self._keep(self._ids[self._told :])
        return new

    def flush(self) -> str:
        """What is left at the end, without the character that remained incomplete."""
        return self._tokenizer.decode(self._ids)[self._told_length :].rstrip(_REPLACEMENT)

    def _keep(self, ids: list[int]) -> None:
        """Go on with `ids`, whose text has been told, as the context of what follows."""
        self._ids, self._told = ids, len(ids)
        self._told_length = len(self._tokenizer.decode(ids))


class StopStrings:
    """Looks for stop strings in a text that grows; holds back what may become one."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = stops
        self._held = ""

    def push(self, text: str) -> tuple[str, bool]:
        """The text that may be told now, and whether a stop string came: then it ends before that."""
        text = self._held + text
        found = [position for position in map(text.find, self._stops) if position >= 0]
        if found:
            self._held = ""
            return text[: min(found)], True
        keep = max((_overlap(text, stop) for stop in self._stops), default=0)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep], False

    def flush(self) -> str:
        """What was held back, once it is clear that nothing follows."""
        held, self._held = self._held, ""
        return held


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that begins `stop`."""
    longest = min(len(text), len(stop) - 1)
    return next((length for length in range(longest, 0, -1) if text.endswith(stop[:length])), 0)
