"""The policy `cache_aware`."""

import math
from collections.abc import Sequence

from .load import is_overloaded, mean_load, queue_wait, usable_capacity
from .owners import Owners, bits_of, leading_tokens
from .policy import Route, RoutedRequest, Worker
from .prefix import block_bytes

# So many workers are compared; where there are more, those with the most in their caches and others in turns.
_COMPARED = 16
_COMPARED_OWNERS = 6
# How much the answers in progress slow down one more, relative to the answer's own time, at full capacity.
_DECODE_SLOWDOWN = 0.5
# The memory of how much of prompts is found again: requests after which a half of it is forgotten.
_REUSE_STEP = 1 / 128
_BYTES_PER_TOKEN = 4.0


class CacheAware:
    """The worker where a request is done the soonest, with what each has of its prompt in its cache.

    The time is estimated from what waits there, the prompt tokens that are not in its cache, and the answers in
    progress. No worker gets much more than the mean load, so that a beginning that all requests share is soon in all
    caches. A beginning that no cache has goes where the least useful cache content makes way for it, as far as
    beginnings are found again at all: so the caches of all workers together keep the most recently used ones.
    """

    def __init__(self, relay: int = 0) -> None:
        self._owners = Owners(relay=relay)
        self._reuse = 0.0  # part of the prompt tokens, beyond what all workers have, that some cache has
        self._start = relay * 7
        self._listed: Sequence[Worker] = ()
        self._by_bit: dict[int, Worker] = {}

    def choose(self, request: RoutedRequest, workers: Sequence[Worker]) -> Route | None:
        """The worker with the least estimated time; None if there are none."""
        if not workers:
            return None
        steps = [(leading_tokens(request.block_tokens, count), bits) for count, bits in self._levels(request)]
        if len(workers) == 1:
            return Route(workers[0], "only", _cached(steps, self._owners.bit(workers[0].slot)))
        compared = workers if len(workers) <= _COMPARED else self._some(workers, steps)
        return self._cheapest(request, compared, steps)

    def sent(self, request: RoutedRequest, worker: Worker) -> None:
        """The worker is taken to hold the whole prompt from now on."""
        blocks, tokens = request.blocks, request.block_tokens
        bytes_per_token = block_bytes(blocks[0]) / tokens[0] if blocks else _BYTES_PER_TOKEN
        after = max(0, request.input_tokens - sum(tokens)) + request.output_tokens
        holds = math.inf if worker.cache_tokens is None else worker.cache_tokens * bytes_per_token
        self._owners.add(worker.slot, blocks, int(after * bytes_per_token), holds)

    def corrected(self, route: Route, cached_tokens: int) -> None:
        """The model of the worker's cache learns from what the engine found in it."""
        self._owners.correct(route.worker.slot, route.cached_tokens, cached_tokens)

    def forget(self, slot: int) -> None:
        """The worker's cache is gone."""
        self._owners.forget(slot)

    def news(self) -> list[tuple[int, int]]:
        """Blocks that workers have got, for the other relays."""
        return self._owners.news()

    def merge(self, news: Sequence[tuple[int, int]]) -> None:
        """Blocks that workers have got through other relays."""
        self._owners.merge(news)

    def _levels(self, request: RoutedRequest) -> list[tuple[int, int]]:
        return self._owners.levels(request.blocks) if request.blocks else []

    def _cheapest(self, request: RoutedRequest, workers: Sequence[Worker], steps: list[tuple[int, int]]) -> Route:
        owners, output = self._owners, request.output_tokens
        cached = [_cached(steps, owners.bit(worker.slot)) for worker in workers]
        most, least = max(cached), min(cached)
        self._learn_reuse(request.input_tokens - least, most - least)
        mean = mean_load(workers)
        keep = self._keeping(request, workers, cached)
        best, best_key = 0, (True, math.inf, 0.0, 0)
        for index, worker in enumerate(workers):
            load = worker.in_flight / usable_capacity(worker)
            cost = queue_wait(worker, output) + (request.input_tokens - cached[index]) / worker.prefill_rate
            cost += _DECODE_SLOWDOWN * load * output / worker.decode_rate + keep[index] / worker.prefill_rate
            key = (is_overloaded(worker, mean), cost, load, worker.turn)
            if key < best_key:
                best, best_key = index, key
        reason = "cache" if cached[best] > least else "spread" if most > least else "load"
        return Route(workers[best], reason, cached[best])

    def _keeping(self, request: RoutedRequest, workers: Sequence[Worker], cached: list[int]) -> list[float]:
        """Tokens that would have to be computed again because a worker drops them for this request, expected."""
        if self._reuse < 0.01:
            return [0.0] * len(workers)
        owners = self._owners
        ages = []
        for worker, tokens in zip(workers, cached, strict=True):
            new = request.input_tokens - tokens + request.output_tokens
            last_use = owners.oldest(worker.slot, int(new * _BYTES_PER_TOKEN))
            ages.append(math.inf if last_use < 0 else owners.turn - last_use)
        oldest = max(ages)
        weight = self._reuse
        return [
            weight * (request.input_tokens - tokens) * (1 - (age / oldest if age < oldest else 1.0))
            for age, tokens in zip(ages, cached, strict=True)
        ]

    def _learn_reuse(self, possible: int, found: int) -> None:
        if possible > 0:
            self._reuse += (found / possible - self._reuse) * _REUSE_STEP

    def _some(self, workers: Sequence[Worker], steps: list[tuple[int, int]]) -> list[Worker]:
        """Those with the most of the prompt, and further ones: each call takes others."""
        if workers is not self._listed:
            self._listed = workers
            self._by_bit = {}
        chosen: dict[int, Worker] = {}
        if steps:
            if len(self._by_bit) < len(workers):
                self._by_bit = {self._owners.bit(worker.slot): worker for worker in workers}
            for _, bits in reversed(steps):
                for bit in bits_of(bits, _COMPARED_OWNERS - len(chosen)):
                    if bit in self._by_bit:
                        chosen[self._by_bit[bit].slot] = self._by_bit[bit]
        number, step = len(workers), len(workers) // _COMPARED
        self._start = (self._start + 1) % number
        for index in range(self._start, self._start + step * (_COMPARED - len(chosen)), step):
            worker = workers[index % number]
            chosen[worker.slot] = worker
        return list(chosen.values())


def _cached(steps: list[tuple[int, int]], bit: int) -> int:
    """Tokens that the worker of this bit has."""
    for tokens, bits in steps:
        if bits & bit:
            return tokens
    return 0
