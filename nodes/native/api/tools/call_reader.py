"""What readers of all formats of calls have in common: text that comes bit by bit, of which calls are a part."""

from collections.abc import Callable, Sequence

from .markers import first_marker, may_begin
from .pieces import Piece, Text


class CallReader:
    """Reads one answer. A subclass sets `_step` to what it does with the buffer next: whether there is more to do."""

    _step: Callable[[], bool]

    def __init__(self) -> None:
        self._buffer = ""
        self._space = ""  # at the end of text: no part of it if a call follows
        self._called = False  # there is a call
        self._drops_ends = False  # markers that end calls are no text
        self._pieces: list[Piece] = []

    @property
    def is_thinking(self) -> bool:
        """Whether the next text is a thought. Their tags are not this reader's."""
        return False

    def push(self, text: str) -> list[Piece]:
        """The pieces that are certain with this text more."""
        self._buffer += text
        while self._step():
            pass
        return self._taken()

    def flush(self) -> list[Piece]:
        """The last pieces: no text follows."""
        self._end()
        if self._space and not self._called:
            self._pieces.append(Text(self._space))
        self._buffer = self._space = ""
        return self._taken()

    def _end(self) -> None:
        """Make pieces of what is left."""
        raise NotImplementedError

    def _taken(self) -> list[Piece]:
        pieces, self._pieces = self._pieces, []
        return pieces

    def _go_to_marker(self, markers: Sequence[str]) -> str | None:
        """Say the text before the first marker, with which the buffer then begins; None: with what may begin one."""
        found = first_marker(self._buffer, markers)
        place, marker = found if found is not None else (len(self._buffer) - may_begin(self._buffer, markers), None)
        self._say(self._buffer[:place])
        self._buffer = self._buffer[place:]
        return marker

    def _say(self, text: str) -> None:
        text = self._space + text
        said = text.rstrip()
        self._space = text[len(said) :]
        if said:
            self._pieces.append(Text(said))

    def _say_after_all(self, text: str) -> None:
        """Say what looked like a call."""
        self._drops_ends = False
        self._pieces.append(Text(self._space + text))
        self._space = ""
