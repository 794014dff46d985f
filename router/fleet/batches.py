"""The batches that run through this deployment, as long as their drivers go on telling of them."""

import time
from collections.abc import Callable, Mapping

import msgspec

from ...core.batches import STALE_S, BatchRecord


class Batches:
    """Judges by when a record has changed as seen here, so that clocks of other nodes do not matter.

    Args:
        clock: seconds, monotonic.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._known: dict[str, tuple[float, BatchRecord]] = {}  # by driver, with when it has changed

    def hear(self, records: Mapping[str, BatchRecord]) -> None:
        """Take what the run directory has now."""
        now, known = self._clock(), self._known
        self._known = {
            driver: known[driver] if driver in known and known[driver][1] == record else (now, record)
            for driver, record in records.items()
        }

    def all(self) -> list[BatchRecord]:
        """One for each batch, by name: what its driver with the newest record says, with the tokens of all drivers."""
        now = self._clock()
        living = [record for changed, record in self._known.values() if now - changed <= STALE_S]
        by_batch: dict[str, list[BatchRecord]] = {}
        for record in living:
            by_batch.setdefault(record.batch, []).append(record)
        return sorted(map(_together, by_batch.values()), key=lambda record: (record.name, record.batch))


def _together(drivers: list[BatchRecord]) -> BatchRecord:
    furthest = max(drivers, key=lambda record: (record.answered + record.failed, record.written_at))
    return msgspec.structs.replace(
        furthest,
        began_at=min(record.began_at for record in drivers),
        prompt_tokens_per_s=sum(record.prompt_tokens_per_s for record in drivers),
        completion_tokens_per_s=sum(record.completion_tokens_per_s for record in drivers),
        in_flight=sum(record.in_flight for record in drivers),
    )
