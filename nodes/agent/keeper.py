"""Keeping the worker's record: written at each change, and every 10 s as a sign that the agent lives."""

import threading
import time
from collections.abc import Callable
from typing import Any

import msgspec

from ...core.errors import RunDirectoryError
from ...core.records import HEARTBEAT_S, WorkerRecord

_RETRY_S = 1.0
_PATIENCE_S = 2.0  # for one write; a filesystem that stands still must not hold up the agent
_CLOSE_S = 10.0  # for the last write


class RecordKeeper:
    """The record as it should be, and a thread that writes it down. A failed write is repeated until it succeeds."""

    def __init__(
        self, write: Callable[[WorkerRecord], None], record: WorkerRecord, *, heartbeat_s: float = HEARTBEAT_S
    ) -> None:
        self._write, self.record, self._heartbeat_s = write, record, heartbeat_s
        self._changed = threading.Condition()
        self._wanted, self._written = 0, 0  # versions of the record
        self._closing, self._complaint = False, ""
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def note(self, **changes: Any) -> bool:
        """Change the record, and wait a little until that is written; whether it is."""
        with self._changed:
            self.record = msgspec.structs.replace(self.record, **changes)
            self._wanted += 1
            self._changed.notify_all()
            return self._changed.wait_for(lambda: self._written == self._wanted, _PATIENCE_S)

    def close(self) -> None:
        """Write no more, once the last change is written or has been tried for some seconds."""
        with self._changed:
            self._changed.wait_for(lambda: self._written == self._wanted, _CLOSE_S)
            self._closing = True
            self._changed.notify_all()
        self._thread.join(_PATIENCE_S)

    def _run(self) -> None:
        tried, wait_s = 0, self._heartbeat_s
        while True:
            with self._changed:
                self._changed.wait_for(lambda tried=tried: self._closing or self._wanted != tried, wait_s)  # type: ignore[misc]
                if self._closing:
                    return
                tried, record = self._wanted, self.record
            wait_s = self._heartbeat_s if self._try(record, tried) else _RETRY_S

    def _try(self, record: WorkerRecord, version: int) -> bool:
        try:
            self._write(msgspec.structs.replace(record, updated_at=time.time()))
        except (RunDirectoryError, OSError) as error:
            if str(error) != self._complaint:
                self._complaint = str(error)
                print(f"the worker's record is not up to date: {error}", flush=True)
            return False
        self._complaint = ""
        with self._changed:
            self._written = version
            self._changed.notify_all()
        return True
