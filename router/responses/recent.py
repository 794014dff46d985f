"""Turns of conversations that were read or written lately, in memory: a long conversation is many files."""

import threading
from collections import OrderedDict

from .record import Record

MOST_BYTES = 32 * 2**20
_EACH = 1024  # bytes that a record takes besides its JSON, about


class Recent:
    """The turns that were used last. Threads share it.

    Only turns that a kept response goes on with may come from here: whether a response is kept, the disk says.
    """

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self._most, self._bytes = most_bytes, 0
        self._records: OrderedDict[str, Record] = OrderedDict()
        self._lock = threading.Lock()

    def put(self, record: Record) -> None:
        """Keep a turn in mind, and forget those that were not used for longest."""
        if record.size + _EACH > self._most:
            return
        with self._lock:
            old = self._records.pop(record.id, None)
            self._bytes += record.size - (old.size if old is not None else -_EACH)
            self._records[record.id] = record
            while self._bytes > self._most:
                self._bytes -= self._records.popitem(last=False)[1].size + _EACH

    def get(self, tenant: str, id: str) -> Record | None:
        """A tenant's turn, if it is known."""
        with self._lock:
            record = self._records.get(id)
            if record is None or record.tenant != tenant:
                return None
            self._records.move_to_end(id)
            return record
