"""What a relay counts: plain numbers that cost next to nothing, cumulative, which travel as they are in its reports.

    counters.count(counters.refused, "queue_full")
    counters.time(counters.ttft, "/v1/completions", 0.25)

The supervisor merges those of all relays and renders them (router/metrics.py, which has the names).
"""

from bisect import bisect_left
from collections.abc import Hashable, Mapping
from typing import ClassVar, TypeVar

import msgspec

Key = TypeVar("Key", bound=Hashable)

# Seconds. A first token comes after 10 ms to minutes, a long generation takes an hour.
_LATENCY = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 60.0, 150.0, 600.0, 3600.0)
_BETWEEN_TOKENS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)


class Histogram(msgspec.Struct):
    """Counts of values by fixed bounds: `counts[i]` of those up to `bounds[i]`, and a last one of those above all."""

    bounds: ClassVar[tuple[float, ...]] = ()
    counts: list[int] = []
    sum: float = 0.0

    def __post_init__(self) -> None:
        self.counts = self.counts or [0] * (len(self.bounds) + 1)

    def observe(self, value: float) -> None:
        """Count a value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def add(self, other: "Histogram") -> None:
        """Count all that `other` has counted."""
        for index, count in enumerate(other.counts[: len(self.counts)]):
            self.counts[index] += count
        self.sum += other.sum


class Latency(Histogram):
    """The seconds that requests take."""

    bounds: ClassVar[tuple[float, ...]] = _LATENCY


class Gap(Histogram):
    """The seconds between two events of a stream."""

    bounds: ClassVar[tuple[float, ...]] = _BETWEEN_TOKENS


class Counters(msgspec.Struct, kw_only=True):
    """All that one relay has counted since its start. `endpoint` is a path of few, such as /v1/chat/completions."""

    requests: dict[tuple[str, int], int] = {}  # by endpoint and status of the answer; 499: the client hung up
    duration: dict[str, Latency] = {}  # by endpoint: from a request's head to the last byte of its answer
    ttft: dict[str, Latency] = {}  # by endpoint: from a request's head to the first byte of a worker's body
    itl: Gap = msgspec.field(default_factory=Gap)  # between two pieces of a stream
    queue_time: dict[str, Latency] = {}  # by priority: until a request was sent to a worker
    choices: dict[str, int] = {}  # by the policy's reason
    prompt_tokens: int = 0  # as engines reported them
    generated_tokens: int = 0
    cached_tokens: int = 0  # of the prompts, as engines reported them
    expected_cached_tokens: int = 0  # of the same prompts, as the policy estimated them
    retries: int = 0  # requests sent to another worker before the first byte
    failovers: dict[tuple[str, str], int] = {}  # by tried, succeeded, failed; by kind: stream, body
    hedges: dict[str, int] = {}  # by outcome: sent, won
    upstream_errors: dict[tuple[str, str], int] = {}  # by worker's id and kind
    refused: dict[str, int] = {}  # by reason: queue_full, queue_timeout, rate, quota, key, too_large, ...
    preempted: int = 0  # batch requests that gave way before their first byte
    moved: int = 0  # requests of draining workers that other workers went on with
    worker_requests: dict[str, int] = {}  # by worker's id: answered
    worker_tokens: dict[str, int] = {}  # by worker's id: generated
    responses_kept: int = 0  # written
    responses_kept_bytes: int = 0
    responses_not_kept: dict[str, int] = {}  # by reason: off, too_large, busy, slow, no_space, failed
    responses_removed: dict[str, int] = {}  # by reason: expired, limit, deleted
    failed_rounds: dict[str, int] = {}  # by task: rounds that raised what nobody has foreseen

    @staticmethod
    def count(table: dict[Key, int], key: Key, by: int = 1) -> None:
        """Add to one of the tables."""
        table[key] = table.get(key, 0) + by

    @staticmethod
    def time(table: dict[str, Latency], key: str, seconds: float) -> None:
        """Count a time in one of the tables of histograms."""
        found = table.get(key)
        if found is None:
            found = table[key] = Latency()
        found.counts[bisect_left(_LATENCY, seconds)] += 1
        found.sum += seconds

    def removed_responses(self, removed: Mapping[str, int]) -> None:
        """Count kept responses that were removed, by reason."""
        for reason, count in removed.items():
            self.count(self.responses_removed, reason, count)

    def add(self, other: "Counters") -> None:
        """Count all that `other` has counted, in every field."""
        for name in self.__struct_fields__:
            mine, its = getattr(self, name), getattr(other, name)
            if isinstance(mine, dict):
                _add_table(mine, its)
            elif isinstance(mine, Histogram):
                mine.add(its)
            else:
                setattr(self, name, mine + its)


def _add_table(mine: dict[Hashable, int | Latency], its: dict[Hashable, int | Latency]) -> None:
    for key, value in its.items():
        if isinstance(value, Latency):
            found = mine.setdefault(key, Latency())
            assert isinstance(found, Latency)
            found.add(value)
        else:
            mine[key] = mine.get(key, 0) + value  # type: ignore[operator]
