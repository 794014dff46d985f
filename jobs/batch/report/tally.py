"""How far a batch is: counted in one place, shown in another."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from ..ledger.record import Record


@dataclass(frozen=True, kw_only=True)
class BatchState:
    """One look at a batch. `answered` and `failed` are rows; both, and nothing else, count towards `total`."""

    total: int  # rows that are to be settled; blank ones are taken out as they are found
    answered: int  # earlier runs' included
    skipped: int  # of which by earlier runs
    failed: int
    prompt_tokens: int  # in this run, like those below
    cached_tokens: int
    completion_tokens: int
    in_flight: int  # requests
    wanted: int  # requests that should be in flight
    waiting_for: int  # shards that other drivers have, while nothing else is left
    elapsed_s: float

    @property
    def tokens_per_s(self) -> float:
        """Tokens generated per second in this run."""
        return self.completion_tokens / self.elapsed_s if self.elapsed_s else 0.0

    @property
    def left_s(self) -> float | None:
        """Seconds until the end at the pace so far; None while there is none."""
        settled = self.answered - self.skipped + self.failed
        return self.elapsed_s / settled * (self.total - self.answered - self.failed) if settled > 0 else None


class Tally:
    """The counters of one run."""

    def __init__(self, total: int, skipped: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._total, self._answered, self._skipped, self._failed = total, skipped, skipped, 0
        self._prompt_tokens = self._cached_tokens = self._completion_tokens = 0
        self._waiting_for = 0
        self._clock, self._began = clock, clock()

    def settle(self, record: Record) -> None:
        """Count a row that is settled now."""
        if record.blank:
            self._total -= 1
        elif record.is_answered:
            self._answered += 1
        else:
            self._failed += 1
        self._prompt_tokens += record.prompt_tokens
        self._cached_tokens += record.cached_tokens
        self._completion_tokens += record.completion_tokens

    def skip(self, rows: int) -> None:
        """Count rows that earlier runs have settled."""
        self._answered += rows
        self._skipped += rows

    def wait_for(self, shards: int) -> None:
        """Note that so many shards are another driver's, and that nothing else is left."""
        self._waiting_for = shards

    def state(self, in_flight: int, wanted: int) -> BatchState:
        """The counters as they are now."""
        return BatchState(
            total=self._total,
            answered=self._answered,
            skipped=self._skipped,
            failed=self._failed,
            prompt_tokens=self._prompt_tokens,
            cached_tokens=self._cached_tokens,
            completion_tokens=self._completion_tokens,
            in_flight=in_flight,
            wanted=wanted,
            waiting_for=self._waiting_for,
            elapsed_s=self._clock() - self._began,
        )
