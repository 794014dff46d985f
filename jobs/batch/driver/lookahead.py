"""Rows that are ready to be sent, between the thread that reads them and the event loop that sends them."""

import threading
from collections import deque
from collections.abc import Callable, Sequence

from ..inputs.plan import Shard
from ..ledger.record import Record
from .work import Work, arrange

MOST_ROWS = 4096  # of a window, the rows that are put in order together
_LEAST_ROWS = 256
_PER_REQUEST = 8  # rows of a window for each request in flight: what is read ahead is no other driver's any more
WINDOW_BYTES = 64 * 1024 * 1024


class LookAhead:
    """At most about two windows of rows: one that is being sent, and the next one.

    Args:
        on_change: called from the reading thread when there is something to take.
        in_flight: how many requests are wanted in flight.
    """

    def __init__(self, on_change: Callable[[], object], in_flight: Callable[[], int] = lambda: MOST_ROWS) -> None:
        self._on_change, self._in_flight = on_change, in_flight
        self._rows: deque[Work] = deque()
        self._settled: deque[tuple[Shard, Record]] = deque()
        self._bytes = 0
        self._room = threading.Condition()
        self._closed = False

    @property
    def window_rows(self) -> int:
        """Rows of a window."""
        return min(MOST_ROWS, max(_LEAST_ROWS, _PER_REQUEST * self._in_flight()))

    def put(self, rows: Sequence[Work], *, last: bool) -> bool:
        """Put a window of rows in order and behind those before; `last`: among them, as none follow.

        Waits for room. False where no more rows are wanted.
        """
        rows = arrange(rows, last)
        with self._room:
            self._room.wait_for(lambda: self._closed or last or self._has_room)
            if self._closed:
                return False
            self._rows.extend(rows)
            if last:
                self._rows = deque(arrange(self._rows, last))
            self._bytes += sum(work.size for work in rows)
        self._on_change()
        return True

    def settle(self, shard: Shard, record: Record) -> bool:
        """Pass on the record of a row that need not be sent. False where no more are wanted."""
        with self._room:
            self._room.wait_for(lambda: self._closed or len(self._settled) <= MOST_ROWS)
            self._settled.append((shard, record))
            first = len(self._settled) == 1
        if first:
            self._on_change()
        return not self._closed

    def take(self) -> Work | None:
        """The next row, if there is one."""
        with self._room:
            if not self._rows:
                return None
            work = self._rows.popleft()
            before = self._has_room
            self._bytes -= work.size
            if (self._has_room and not before) or not self._rows:
                self._room.notify_all()
            return work

    def take_settled(self) -> tuple[Shard, Record] | None:
        """The next record of a row that need not be sent."""
        if not self._settled:
            return None
        with self._room:
            found = self._settled.popleft()
            if len(self._settled) == MOST_ROWS:
                self._room.notify_all()
        return found

    @property
    def next_size(self) -> int:
        """Bytes of the row that `take` would give; 0: none."""
        with self._room:
            return self._rows[0].size if self._rows else 0

    def close(self) -> None:
        """No more rows are wanted."""
        with self._room:
            self._closed = True
            self._room.notify_all()

    @property
    def is_hungry(self) -> bool:
        """Whether nothing is left to send: better a few rows now than many in good order later."""
        return not self._rows

    @property
    def _has_room(self) -> bool:
        return len(self._rows) <= self.window_rows // 2 and self._bytes <= WINDOW_BYTES
