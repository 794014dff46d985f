"""The policy `cache_aware`."""

import math
from collections.abc import Sequence

from .load import most_load, usable_capacity
from .owners import Owners, bits_of, leading_tokens
from .policy import Route, RoutedRequest, Worker
from .prefix import block_bytes

# So many workers are compared; where there are more, those with the most in their caches and others in turns.
_COMPARED = 16
_COMPARED_OWNERS = 6
# How much the answers in progress slow down one more, relative to the answer's own time, at full capacity.
_DECODE_SLOWDOWN = 0.5
# Prompt tokens that are computed delay the answers in progress too: the part of that delay that counts, relative to the
# request's own. With 0 each request would take the shortest way for itself, and fill all caches with the same.
_OTHERS_DELAYED = 0.4
# The part of one request in the average of how much of prompts is found again.
_REUSE_STEP = 1 / 128
_NO_REUSE = 0.01
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
        self._changes = -1

    def choose(self, request: RoutedRequest, workers: Sequence[Worker]) -> Route | None:
        """The worker with the least estimated time; None if there are none."""
        if not workers:
            return None
        levels = self._owners.levels(request.blocks)
        steps = [(leading_tokens(request.block_tokens, count), bits) for count, bits in levels]
        if len(workers) == 1:
            return self._route(request, levels, workers[0], "only", self._cached(workers, steps)[0])
        compared = workers if len(workers) <= _COMPARED else self._some(workers, steps)
        worker, reason, cached = self._cheapest(request, compared, steps)
        return self._route(request, levels, worker, reason, cached)

    def sent(self, request: RoutedRequest, worker: Worker) -> None:
        """The worker is taken to hold the whole prompt from now on."""
        blocks, tokens = request.blocks, request.block_tokens
        bytes_per_token = block_bytes(blocks[0]) / tokens[0] if blocks else _BYTES_PER_TOKEN
        after = max(0, request.input_tokens - sum(tokens)) + request.output_tokens
        holds = math.inf if worker.cache_tokens is None else worker.cache_tokens * bytes_per_token
        self._owners.add(worker.slot, blocks, int(after * bytes_per_token), holds)

    def corrected(self, route: Route, cached_tokens: int) -> None:
        """The model of the worker's cache learns from what the engine found in it."""
        if not route.fresh or cached_tokens >= route.cached_tokens:
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

    def _route(
        self, request: RoutedRequest, levels: list[tuple[int, int]], worker: Worker, reason: str, cached: int
    ) -> Route:
        if not cached:
            return Route(worker, reason)
        count = _value_of(levels, self._owners.bit(worker.slot))
        return Route(worker, reason, cached, self._owners.is_fresh(worker.slot, request.blocks[count - 1]))

    def _cheapest(
        self, request: RoutedRequest, workers: Sequence[Worker], steps: list[tuple[int, int]]
    ) -> tuple[Worker, str, int]:
        cached = self._cached(workers, steps)
        most, least = max(cached), min(cached)
        self._learn_reuse(request.input_tokens - least, most - least)
        again: Sequence[float] = [request.input_tokens - tokens for tokens in cached]
        if self._reuse > _NO_REUSE:
            again = self._with_dropped(again, workers, request.output_tokens)
        best = _soonest(workers, again, request.output_tokens)
        reason = "cache" if cached[best] > least else "spread" if most > least else "load"
        return workers[best], reason, cached[best]

    def _cached(self, workers: Sequence[Worker], steps: list[tuple[int, int]]) -> list[int]:
        if not steps:
            return [0] * len(workers)
        bit = self._owners.bit
        return [_value_of(steps, bit(worker.slot)) for worker in workers]

    def _with_dropped(self, new: Sequence[float], workers: Sequence[Worker], output: int) -> list[float]:
        """To the tokens that a request is new with at each worker, add what is dropped there and will be missed.

        Of full caches, that which drops what was not used for the longest time misses nothing.
        """
        owners = self._owners
        turn, ages = owners.turn, []
        for worker, tokens in zip(workers, new, strict=True):
            last_use = owners.oldest(worker.slot, int((tokens + output) * _BYTES_PER_TOKEN))
            ages.append(turn - last_use if last_use >= 0 else math.inf)
        oldest = max(ages)
        if oldest == min(ages):
            return list(new)
        reuse = self._reuse
        return [
            tokens if age == oldest else tokens * (1 + reuse * (1 - age / oldest))
            for age, tokens in zip(ages, new, strict=True)
        ]

    def _learn_reuse(self, possible: int, found: int) -> None:
        if possible > 0:
            self._reuse += (found / possible - self._reuse) * _REUSE_STEP

    def _some(self, workers: Sequence[Worker], steps: list[tuple[int, int]]) -> list[Worker]:
        """Those with the most of the prompt, and further ones: each call takes others."""
        if workers is not self._listed or self._owners.changes != self._changes:
            self._listed, self._changes = workers, self._owners.changes
            self._by_bit = {self._owners.bit(worker.slot): worker for worker in workers}
        chosen: dict[int, Worker] = {}
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


def _soonest(workers: Sequence[Worker], again: Sequence[float], output: int) -> int:
    """Index of the worker with the least estimated time, where `again` tokens are to be computed. Not one of too many.

    The loop is the hot part of a choice: each property is read once.
    """
    flights = [worker.in_flight for worker in workers]
    capacities = [usable_capacity(worker) for worker in workers]
    mean = (sum(flights) + 1) / sum(capacities)
    loads = [in_flight / capacity for in_flight, capacity in zip(flights, capacities, strict=True)]
    bound = most_load(mean, min(loads))
    best, best_key = 0, (True, math.inf, 0.0, 0)
    for index, worker in enumerate(workers):
        in_flight, capacity, load = flights[index], capacities[index], loads[index]
        prompt = (worker.pending_tokens + again[index] * (1 + _OTHERS_DELAYED * in_flight)) / worker.prefill_rate
        queued = max(0.0, load + 1 / capacity - 1)
        cost = prompt + (queued + _DECODE_SLOWDOWN * load) * output / worker.decode_rate
        key = (load > bound, cost, load, worker.turn)
        if key < best_key:
            best, best_key = index, key
    return best


def _value_of(levels: list[tuple[int, int]], bit: int) -> int:
    """What a list of values and workers says of the worker of this bit."""
    for value, bits in levels:
        if bits & bit:
            return value
    return 0
