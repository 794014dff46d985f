"""What relays know of each other's queues: `Neighbours` of admission, on the board."""

from collections.abc import Hashable, Sequence
from zlib import crc32

from .board import QUEUES, Board


class QueuesOnBoard:
    """The queues of the relays other than `index`.

    A lane has the same column in all relays, by a checksum. Two lanes may have the same one: then some slots are left
    to requests that do not want them, for as long as admission waits for that.
    """

    def __init__(self, board: Board, index: int) -> None:
        self._board, self._index, self._row = board, index, board.row(index)
        self._columns: dict[Hashable, int] = {}

    def publish(self, lane: Hashable, waiting: Sequence[int]) -> None:
        """Tell the others how many requests wait here, by class."""
        self._row.wait(self._column(lane), waiting)

    def waiting(self, lane: Hashable) -> Sequence[int] | None:
        """Requests that wait in the others, by class; None where nobody does."""
        return self._board.waiting(self._index, self._column(lane))

    def _column(self, lane: Hashable) -> int:
        column = self._columns.get(lane)
        if column is None:
            column = self._columns[lane] = crc32(repr(lane).encode()) % QUEUES
        return column
