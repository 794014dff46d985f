"""`fleet.json` as the controller keeps it: what is known of each pool, what was decided, and what is in the way."""

import logging
from collections.abc import Callable, Mapping

import msgspec

from ...core.errors import RunDirectoryError
from ...core.records import DecisionRecord, FleetRecord, PoolRecord
from ...core.rundir import RunDirectory

_MOST_DECISIONS = 100
LONGEST_TEXT = 2000  # of what a log or a command has said; the whole record must stay readable

_log = logging.getLogger(__name__)


class Journal:
    """The record of a fleet, in memory until `write`.

    Args:
        run: of the deployment.
        clock: Unix seconds.
    """

    def __init__(self, run: RunDirectory, clock: Callable[[], float]) -> None:
        self._run, self._clock = run, clock
        self._fleet = FleetRecord(written_at=0.0)

    def read(self) -> None:
        """Go on with what an earlier controller has left, as far as it can be read."""
        self._fleet = FleetRecord(written_at=0.0)
        try:
            self._fleet = self._run.read_fleet() or self._fleet
        except RunDirectoryError as error:
            _log.warning("measuring begins anew: %s", error)

    def write(self, trouble: str = "") -> None:
        """Replace the file. `trouble`: why nothing can be done now. Raises RunDirectoryError."""
        if trouble and trouble != self._fleet.trouble:
            _log.warning("nothing is done until this ends: %s", trouble)
        self._fleet = msgspec.structs.replace(self._fleet, written_at=self._clock(), trouble=trouble)
        self._run.write_fleet(self._fleet)

    @property
    def pools(self) -> Mapping[str, PoolRecord]:
        """By name, the pools that something is known of."""
        return self._fleet.pools

    def pool(self, name: str) -> PoolRecord:
        """What is known of a pool."""
        return self._fleet.pools.get(name) or PoolRecord()

    def put(self, name: str, record: PoolRecord) -> None:
        """Replace what is known of a pool."""
        self._fleet = msgspec.structs.replace(self._fleet, pools={**self._fleet.pools, name: record})

    def change(self, name: str, **changes: object) -> None:
        """Change fields of a pool's record."""
        self.put(name, msgspec.structs.replace(self.pool(name), **changes))

    def decided(self, text: str) -> None:
        """Add something that was done, or was seen to have happened, in words for the user."""
        _log.info("%s", text)
        decision = DecisionRecord(at=self._clock(), text=text[:LONGEST_TEXT])
        latest = (*self._fleet.decisions, decision)[-_MOST_DECISIONS:]
        self._fleet = msgspec.structs.replace(self._fleet, decisions=latest)
