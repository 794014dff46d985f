"""Which worker gets a request. A policy decides from what it is given and touches nothing."""

from collections.abc import Collection, Sequence
from typing import Protocol

from ..fleet.worker import Worker


class Policy(Protocol):
    """A way to choose."""

    def choose(self, candidates: Sequence[Worker], exclude: Collection[Worker]) -> Worker | None:
        """One of `candidates` that is not in `exclude`, or None if there is none."""


class LeastLoaded:
    """The lowest in-flight count relative to capacity; of equals the one whose turn is longest ago."""

    def choose(self, candidates: Sequence[Worker], exclude: Collection[Worker]) -> Worker | None:
        free = [worker for worker in candidates if worker not in exclude]
        return min(free, key=lambda worker: (worker.load, worker.turn), default=None)


POLICIES: dict[str, type[Policy]] = {"least_loaded": LeastLoaded}
