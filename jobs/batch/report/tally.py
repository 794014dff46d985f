"""How far a batch is: counted in one place, shown in another."""

import time
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class BatchState:
    """One look at a batch. `done` and `failed` are lines; both, and nothing else, count towards `total`."""

    total: int
    done: int  # with a result, earlier runs' included
    skipped: int  # of which from earlier runs
    failed: int
    tokens: int  # generated in this run
    elapsed_s: float

    @property
    def tokens_per_s(self) -> float:
        """Tokens generated per second in this run."""
        return self.tokens / self.elapsed_s if self.elapsed_s else 0.0

    @property
    def left_s(self) -> float | None:
        """Seconds until the end at the pace so far; None while there is none."""
        settled = self.done - self.skipped + self.failed
        return self.elapsed_s / settled * (self.total - self.done - self.failed) if settled else None


class Tally:
    """The counters of one run."""

    def __init__(self, total: int) -> None:
        self.total, self.done, self.skipped, self.failed, self.tokens = total, 0, 0, 0, 0
        self._began = time.monotonic()

    @property
    def elapsed_s(self) -> float:
        """Seconds since this run began."""
        return time.monotonic() - self._began

    def skip(self) -> None:
        """Count a line that an earlier run has done."""
        self.done += 1
        self.skipped += 1

    def finish(self, tokens: int) -> None:
        """Count a line that has its result now, for which so many tokens were generated."""
        self.done += 1
        self.tokens += tokens

    def fail(self) -> None:
        """Count a line that gets no result."""
        self.failed += 1

    def state(self) -> BatchState:
        """The counters as they are now."""
        return BatchState(
            total=self.total,
            done=self.done,
            skipped=self.skipped,
            failed=self.failed,
            tokens=self.tokens,
            elapsed_s=self.elapsed_s,
        )
