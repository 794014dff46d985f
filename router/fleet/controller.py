"""What the controller of the fleet says in `fleet.json`, for as long as it goes on writing."""

import time
from collections.abc import Callable

import msgspec

from ...core.records import CONTROLLER_SILENCE_S, FleetRecord, PoolRecord, ScaleRecord


class ControllerReport:
    """Judges by when the record has changed as seen here, so that clocks of other nodes do not matter.

    Args:
        clock: seconds, monotonic.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._changed_at = clock()
        self.last: FleetRecord | None = None  # however old
        self._scale = ScaleRecord()

    def hear(self, record: FleetRecord | None) -> None:
        """Take what the file says now; None where there is none."""
        if record is None or self.last is None or record.written_at != self.last.written_at:
            self._changed_at = self._clock()
        self.last = record

    def hear_scale(self, scale: ScaleRecord) -> None:
        """Take what users have asked the controller for."""
        self._scale = scale

    @property
    def is_silent(self) -> bool:
        """Whether there was a controller, and it writes no more."""
        return self.last is not None and self._clock() - self._changed_at > CONTROLLER_SILENCE_S

    def pool(self, name: str) -> PoolRecord | None:
        """What holds for a pool now; None where the controller says nothing of it.

        Where a user has just asked for workers, they may come although the controller has not looked since.
        """
        record = None if self.last is None or self.is_silent else self.last.pools.get(name)
        if record is None or self._scale.asked_at.get(name, record.asked_at) == record.asked_at:
            return record
        if self._scale.pinned.get(name) == 0:
            return record
        return msgspec.structs.replace(record, may_come=True, gave_up=False, waits="", waits_until=None)
