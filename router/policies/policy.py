"""What a policy is. It decides from what it is given and touches nothing."""

from collections.abc import Sequence
from typing import Protocol

import msgspec

REASONS = ("cache", "load", "only", "session", "spread", "turn")  # of `Route`


class Worker(Protocol):
    """What policies see of a worker that may take the request. Counts are those of all relays together."""

    @property
    def id(self) -> str:
        """POOL-SERIAL."""

    @property
    def slot(self) -> int:
        """Number of this life of the worker on the board: small, the same in all relays."""

    @property
    def pool(self) -> str:
        """Name of its pool."""

    @property
    def model(self) -> str:
        """The name by which requests ask for its model."""

    @property
    def choosable(self) -> bool:
        """Whether it may get new requests: it is ready, trusted and not draining."""

    @property
    def usable_capacity(self) -> float:
        """Requests that it may compute at once now, 1 at least: fewer while it comes back after an ejection."""

    @property
    def in_flight(self) -> int:
        """Requests sent to it and not answered yet."""

    @property
    def pending_tokens(self) -> int:
        """Prompt tokens, but those in its cache, of the requests in flight that have no byte of an answer yet."""

    @property
    def prefill_rate(self) -> float:
        """Prompt tokens/s that it computes, learned; a usual figure until there is one."""

    @property
    def decode_rate(self) -> float:
        """Tokens/s of one of its streams, learned; a usual figure until there is one."""

    @property
    def cache_tokens(self) -> int | None:
        """Tokens that its KV cache holds; None where the engine does not say."""

    @property
    def turn(self) -> int:
        """Ordinal of the last request that it was chosen for: lower is longer ago."""

    @property
    def ends_at(self) -> float | None:
        """Unix time of its walltime limit."""


class RoutedRequest(msgspec.Struct):
    """What a policy knows of a request, computed once."""

    path: str  # such as /v1/chat/completions
    model: str | None  # None: the client names none, so that any will do
    tenant: str
    session: str | None  # what ties requests together: a header, or `user` of the body
    input_tokens: int  # estimated from the prompt's bytes
    output_tokens: int  # estimated from max_tokens and learned lengths
    blocks: Sequence[int]  # chained hashes of the prompt's blocks, in order; see prefix.py
    leading_tokens: Sequence[int]  # estimated tokens of the first 0, 1, 2, ... blocks; may have more than there are


class Route(msgspec.Struct):
    """A choice. `reason` is one of `REASONS`, for metrics.

    cache: for what the worker has in its cache; spread: another worker has more in its cache, but is too busy.
    """

    worker: Worker
    reason: str
    cached_tokens: int = 0  # prompt tokens that are expected to be in the worker's cache
    cached_age: float = 0.0  # of these, from 0 (perhaps not computed yet) to 1 (the next that the cache drops)
    turn: int = 0  # the policy's count of requests at that time


class Policy(Protocol):
    """Chooses the worker that gets a request."""

    def choose(self, request: RoutedRequest, workers: Sequence[Worker]) -> Route | None:
        """One of `workers`, which can all take the request and have not been tried for it; None if there are none.

        `workers` stand in the same order in all relays. Passing the same list again is cheaper than an equal one.
        """

    def sent(self, request: RoutedRequest, worker: Worker) -> None:
        """Note that the request goes to `worker`, which will hold the prompt. Called as it is sent."""

    def corrected(self, route: Route, cached_tokens: int) -> None:
        """Note how many prompt tokens the engine says it found in its cache, once it has answered."""

    def forget(self, slot: int) -> None:
        """Note that the life of a worker has ended."""

    def news(self) -> list[tuple[int, int]]:
        """What the other relays must know since the last call, as (key, slot) for the board's ring. Keys are int64."""

    def merge(self, news: Sequence[tuple[int, int]]) -> None:
        """Take what another relay's policy gave as news."""


class Memoryless:
    """The parts of a policy that learns nothing from what was sent. `relay`: index of the relay that it is for."""

    def __init__(self, relay: int = 0) -> None:
        self._relay = relay

    def sent(self, request: RoutedRequest, worker: Worker) -> None:
        """Nothing is noted."""

    def corrected(self, route: Route, cached_tokens: int) -> None:
        """Nothing is noted."""

    def forget(self, slot: int) -> None:
        """Nothing was known."""

    def news(self) -> list[tuple[int, int]]:
        """There is none."""
        return []

    def merge(self, news: Sequence[tuple[int, int]]) -> None:
        """Nothing is noted."""
