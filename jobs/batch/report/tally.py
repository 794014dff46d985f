"""How far a batch is: counted in one place, shown in another."""

import re
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

_MOST_REASONS = 100  # different ones that are counted
_REASON_LENGTH = 200
_MOST_TIMINGS = 4096  # of the first rows; a sample is no larger
OTHER_REASONS = "other reasons"
_PLACE = re.compile(r"^(?:line|row) \d+ of ")  # unreadable rows of one file have one reason


class Timing(msgspec.Struct, frozen=True, kw_only=True):
    """When one row was under way, in seconds since its driver began, and what was computed for it."""

    began: float
    ended: float
    prompt_tokens: int  # cached ones among them
    cached_tokens: int
    completion_tokens: int

    @property
    def uncached_tokens(self) -> int:
        """Tokens of the prompt that were computed."""
        return max(0, self.prompt_tokens - self.cached_tokens)


@dataclass(frozen=True, kw_only=True)
class BatchState:
    """One look at a batch. `answered` and `failed` are rows of all drivers; both, and nothing else, count to `total`.

    Tokens, retries, reasons and requests in flight are those of this driver, since it began.
    """

    total: int  # rows of the input, or those of --limit or --sample; blank ones left out
    answered: int  # with an answer, earlier ones included
    failed: int
    elapsed_s: float
    skipped: int = 0  # of the answered: before this driver began
    own: int = 0  # rows that this driver has settled
    prompt_tokens: int = 0
    cached_tokens: int = 0  # of the prompt tokens: found in a cache
    completion_tokens: int = 0
    retries: int = 0
    in_flight: int = 0
    wanted_in_flight: int = 0
    workers: int | None = None  # that are ready; None: the endpoint does not tell
    drivers: int = 1  # at work, this one included
    reasons: Mapping[str, int] = field(default_factory=dict)  # of rows that have failed, how many
    timings: Sequence[Timing] = ()  # of the first rows that were answered; it grows while the driver works

    @property
    def settled(self) -> int:
        """Rows that need nothing more."""
        return self.answered + self.failed

    @property
    def left(self) -> int:
        """Rows that are not settled."""
        return max(0, self.total - self.settled)

    @property
    def tokens_per_s(self) -> float:
        """Tokens that this driver has got generated per second, since it began."""
        return self.completion_tokens / self.elapsed_s if self.elapsed_s else 0.0


class Tally:
    """The counters of one driver.

    Args:
        total: rows that are to be settled.
        answered: of which have an answer already.
        failed: of which have failed already, and are not tried again.
        monotonic: seconds.
    """

    def __init__(
        self, total: int, answered: int = 0, failed: int = 0, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self.total, self.skipped = total, answered
        self.own_answered = self.own_failed = 0
        self.prompt_tokens = self.cached_tokens = self.completion_tokens = self.retries = 0
        self.in_flight = self.wanted_in_flight = 0
        self.workers: int | None = None
        self.drivers = 1
        self.reasons: Counter[str] = Counter()
        self.timings: list[Timing] = []  # of the first rows that were answered
        self._others = [answered, failed]  # rows answered and failed that are not this driver's own
        self._monotonic, self._began = monotonic, monotonic()

    @property
    def now(self) -> float:
        """Seconds since this driver began."""
        return self._monotonic() - self._began

    def blank(self) -> None:
        """Note a blank line: it is no row of the output."""
        self.total -= 1

    def answer(self, prompt_tokens: int, cached_tokens: int, completion_tokens: int, began: float | None) -> None:
        """Count a row that has its answer now; `began` is what `now` was when it was first sent."""
        self.own_answered += 1
        self.prompt_tokens += prompt_tokens
        self.cached_tokens += cached_tokens
        self.completion_tokens += completion_tokens
        if began is not None and len(self.timings) < _MOST_TIMINGS:
            self.timings.append(
                Timing(
                    began=began,
                    ended=self.now,
                    prompt_tokens=prompt_tokens,
                    cached_tokens=cached_tokens,
                    completion_tokens=completion_tokens,
                )
            )

    def fail(self, reason: str) -> None:
        """Count a row that gets no answer."""
        self.own_failed += 1
        reason = _PLACE.sub("", " ".join(reason.split()))[:_REASON_LENGTH]
        self.reasons[reason if reason in self.reasons or len(self.reasons) < _MOST_REASONS else OTHER_REASONS] += 1

    def retry(self) -> None:
        """Count a request that is sent again."""
        self.retries += 1

    def hear(self, answered: int, failed: int, drivers: int) -> None:
        """Take what the ledger counts over all drivers, and how many are at work. What is counted never falls."""
        self._others[0] = max(self._others[0], answered - self.own_answered)
        self._others[1] = max(self._others[1], failed - self.own_failed)
        self.drivers = drivers

    def state(self) -> BatchState:
        """The counters as they are now."""
        return BatchState(
            total=self.total,
            answered=self._others[0] + self.own_answered,
            failed=self._others[1] + self.own_failed,
            elapsed_s=self.now,
            skipped=self.skipped,
            own=self.own_answered + self.own_failed,
            prompt_tokens=self.prompt_tokens,
            cached_tokens=self.cached_tokens,
            completion_tokens=self.completion_tokens,
            retries=self.retries,
            in_flight=self.in_flight,
            wanted_in_flight=self.wanted_in_flight,
            workers=self.workers,
            drivers=self.drivers,
            reasons=dict(self.reasons.most_common()),
            timings=self.timings,
        )
