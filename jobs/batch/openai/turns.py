"""Which batches are at work: a few at the same time, and every tenant has its turn. Pure."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

MOST_AT_WORK = 4
LEAST_TURN_S, TURN_S = 30.0, 600.0


@dataclass(frozen=True, kw_only=True)
class Waiting:
    """A batch that has work to do, and nobody who does it."""

    id: str
    tenant: str
    rested_at: float = 0.0  # when its last turn has ended, monotonic seconds; 0: it had none


@dataclass(frozen=True, kw_only=True)
class AtWork:
    """A batch that is worked on."""

    id: str
    tenant: str
    since: float  # monotonic seconds
    is_stopping: bool = False


def to_start(waiting: Sequence[Waiting], at_work: Sequence[AtWork]) -> list[str]:
    """The batches that begin now: those of tenants with the fewest at work first, then those that wait the longest."""
    count = Counter(batch.tenant for batch in at_work)
    left = sorted(waiting, key=lambda batch: (batch.rested_at, batch.id))
    chosen: list[str] = []
    while left and len(at_work) + len(chosen) < MOST_AT_WORK:
        batch = min(left, key=lambda batch: count[batch.tenant])  # of equal ones the first
        left.remove(batch)
        count[batch.tenant] += 1
        chosen.append(batch.id)
    return chosen


def to_stop(waiting: Sequence[Waiting], at_work: Sequence[AtWork], now: float) -> str | None:
    """The batch that makes room for one that waits, if one should. One makes room at a time.

    A tenant with two more at work than a tenant who waits gives one up soon; else turns end after TURN_S.
    """
    if not waiting or len(at_work) < MOST_AT_WORK or any(batch.is_stopping for batch in at_work):
        return None
    count = Counter(batch.tenant for batch in at_work)
    fewest, most = min(count[batch.tenant] for batch in waiting), max(count.values())
    turn_s = LEAST_TURN_S if most >= fewest + 2 else TURN_S
    longest = min(
        (batch for batch in at_work if turn_s == TURN_S or count[batch.tenant] == most), key=lambda batch: batch.since
    )
    return longest.id if now - longest.since >= turn_s else None
