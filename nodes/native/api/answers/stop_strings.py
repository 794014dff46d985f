"""Stop strings, looked for in a text that grows."""

from collections.abc import Sequence


class Pattern:
    """One stop string, shared by the texts in which it is looked for.

    Knuth, Morris and Pratt (1977): it takes steps in proportion to the text, whatever the stop string is. Clients
    choose stop strings, and can choose what a model writes.
    """

    def __init__(self, stop: str) -> None:
        self._stop = stop
        self._borders = [0, 0]  # of its beginnings: the longest shorter one that each ends with, as far as was needed

    def advance(self, length: int, text: str) -> int:
        """How long the beginning of it is with which a text ends: after more `text`, in which it is not complete.

        `length`: the same before that.
        """
        for character in text:
            length = self._next(length, character)
        return length

    def _next(self, length: int, character: str) -> int:
        while length and self._stop[length] != character:
            length = self._border(length)
        return length + (self._stop[length] == character)

    def _border(self, length: int) -> int:
        while len(self._borders) <= length:
            self._borders.append(self._next(self._borders[-1], self._stop[len(self._borders) - 1]))
        return self._borders[length]


class StopStrings:
    """Looks for stop strings in a text that grows; holds back what may become one.

    A part of the text may be hidden: special tokens, which can be a stop string or a part of one and are never told.
    """

    def __init__(self, stops: Sequence[str], *, keep: bool = False, patterns: Sequence[Pattern] | None = None) -> None:
        """
        Args:
            stops: the stop strings.
            keep: the text ends with the stop string, not before it.
            patterns: those of the stop strings, if other texts have the same.
        """
        self._patterns = list(map(Pattern, stops)) if patterns is None else patterns
        self._lengths = [0] * len(stops)  # of the beginning of each with which the text ends
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
        pairs = zip(self._patterns, self._lengths, strict=True)
        self._lengths = [pattern.advance(length, text) for pattern, length in pairs]
        keep = max(self._lengths, default=0)
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
