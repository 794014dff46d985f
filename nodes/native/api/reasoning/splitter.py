"""The text of an answer, split into what the model thinks and what it says."""

from ..tools.markers import may_begin
from .tags import Tags


class ThinkingSplitter:
    """Reads one answer. Thinking is at its beginning only; white space around it belongs to the tags."""

    def __init__(self, tags: Tags, *, within: bool, at_once: bool = True) -> None:
        """`within`: the answer begins within the tags. `at_once`: thinking is told as it comes; else when it ends."""
        self._tags, self._at_once = tags, at_once
        self._step = self._thinking if within else self._before
        self._buffer = ""
        self._begun = False  # whether anything but white space has been thought
        self._space = ""
        self._thought = self._said = ""

    @property
    def is_thinking(self) -> bool:
        """Whether the next text is thought."""
        return self._step == self._thinking

    def push(self, text: str) -> tuple[str, str]:
        """What more is thought, and what more is said."""
        self._buffer += text
        while self._step():
            pass
        return self._take()

    def flush(self) -> tuple[str, str]:
        """What was held back, once nothing follows."""
        if self._step == self._thinking:
            self._think(self._buffer)
        elif self._step == self._before:
            self._said += self._buffer
        self._buffer, self._step = "", self._after
        return self._take()

    def _take(self) -> tuple[str, str]:
        said, self._said = self._said, ""
        if self._step == self._thinking and not self._at_once:
            return "", said
        thought, self._thought = self._thought, ""
        return thought, said

    def _before(self) -> bool:
        begin, tag = self._buffer.lstrip(), self._tags.begin
        if begin.startswith(tag):
            self._buffer, self._step = begin[len(tag) :], self._thinking
            return True
        if tag.startswith(begin):
            return False
        self._step = self._after
        return True

    def _thinking(self) -> bool:
        if not self._begun:
            self._buffer = self._buffer.lstrip()
            if self._buffer.startswith(self._tags.begin):  # which the template has written already
                self._buffer = self._buffer.removeprefix(self._tags.begin)
                return True
            if self._tags.begin.startswith(self._buffer):
                return False
            self._begun = True
        end = self._buffer.find(self._tags.end)
        if end >= 0:
            self._think(self._buffer[:end])
            self._space = ""
            self._buffer, self._step = self._buffer[end + len(self._tags.end) :], self._gap
            return True
        cut = len(self._buffer) - may_begin(self._buffer, (self._tags.end,))
        self._think(self._buffer[:cut])
        self._buffer = self._buffer[cut:]
        return False

    def _gap(self) -> bool:
        """White space between the tag and what is said."""
        self._buffer = self._buffer.lstrip()
        if not self._buffer:
            return False
        self._step = self._after
        return True

    def _after(self) -> bool:
        self._said += self._buffer
        self._buffer = ""
        return False

    def _think(self, text: str) -> None:
        text = self._space + text
        thought = text.rstrip()
        self._space = text[len(thought) :]
        self._thought += thought
