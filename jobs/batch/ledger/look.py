"""A look at a ledger from outside, whoever works on it: for `slurminfer batch status`, from any node."""

from dataclasses import dataclass
from pathlib import Path

from .ledger import Counts


@dataclass(frozen=True, kw_only=True)
class DriverSign:
    """A driver, as its last sign of life in the ledger tells. Times are Unix seconds."""

    host: str
    process: str  # PID, or the name that core/processes/process_id.py gives
    job: str | None = None  # Slurm's id of the job around it
    started_at: float
    seen_at: float  # its last sign of life
    is_living: bool  # it has given one lately, and has not ended
    rows: int = 0  # that it has settled
    completion_tokens: int = 0  # generated for them


@dataclass(frozen=True, kw_only=True)
class LedgerLook:
    """One look."""

    counts: Counts
    drivers: tuple[DriverSign, ...] = ()  # the latest ones
    shards: int
    sealed: int

    @property
    def is_settled(self) -> bool:
        """Whether every row has an answer, or an error."""
        return self.sealed == self.shards


def look(path: Path) -> LedgerLook:
    """Read a ledger's folder; nothing is changed. Raises BatchError where there is none, or where it is damaged."""
    raise NotImplementedError
