"""The policy `cache_aware`."""

import math
from collections.abc import Sequence
from operator import truediv

from .load import most_load
from .owners import Cache, Owners, bits_of
from .policy import Route, RoutedRequest, Worker
from .prefix import SMALLEST

# So many workers are compared; where there are more, those with the most in their caches and others in turns.
_COMPARED = 16
_COMPARED_OWNERS = 6
# How much the answers in progress slow down one more, relative to the answer's own time, at full capacity.
_DECODE_SLOWDOWN = 0.5
# Prompt tokens that are computed delay the answers in progress too: the part of that delay that counts, relative to the
# request's own. With 0 each request would take the shortest way for itself, and fill all caches with the same.
_OTHERS_DELAYED = 0.4
# The part of one request in the average of how much of prompts is found again, and what is taken until that is known.
_REUSE_STEP = 1 / 128
_USUAL_REUSE = 0.5
_NO_REUSE = 0.01
# One more copy of a beginning costs up to as much again: what is dropped for it must be computed again later. That is
# so where much of what is found is old, by so many times its mean age; where all is young, what is dropped is useless.
_COPY_BY_AGE = 3.0
_AGE_STEP = 1 / 64
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
        self._reuse = _USUAL_REUSE  # part of the prompt tokens, beyond what all workers have, that some cache has
        self._age = 0.0  # mean of what is found, relative to the oldest content of its cache
        self._start = relay * 7
        self._listed: Sequence[Worker] = ()  # for which the next two are
        self._caches: list[Cache] = []
        self._by_bit: dict[int, Worker] = {}
        self._changes = -1

    def choose(self, request: RoutedRequest, workers: Sequence[Worker]) -> Route | None:
        """The worker with the least estimated time; None if there are none."""
        if not workers:
            return None
        if workers is not self._listed or self._owners.changes != self._changes:
            self._list(workers)
        levels, caches = self._owners.levels(request.blocks), self._caches
        if len(workers) > _COMPARED:
            workers = self._some(workers, levels)
            caches = [self._owners.cache(worker.slot) for worker in workers]
        blocks = _leading_blocks(levels, caches)
        if len(workers) == 1:
            best, reason = 0, "only"
        else:
            best, reason = self._cheapest(request, workers, caches, blocks)
        return self._route(request, workers[best], reason, blocks[best])

    def sent(self, request: RoutedRequest, worker: Worker) -> None:
        """The worker is taken to hold the whole prompt from now on."""
        blocks, tokens = request.blocks, request.leading_tokens
        bytes_per_token = SMALLEST / tokens[1]
        after = max(0, request.input_tokens - tokens[len(blocks)]) + request.output_tokens
        cache_tokens = worker.cache_tokens
        holds = math.inf if cache_tokens is None else cache_tokens * bytes_per_token
        self._owners.add(worker.slot, blocks, int(after * bytes_per_token), holds)

    def corrected(self, route: Route, cached_tokens: int) -> None:
        """The model of the worker's cache learns from what the engine found in it."""
        expected, turn, age = route.cached_tokens, route.turn, route.cached_age
        if 0 < expected < 2 * cached_tokens:
            self._age += (age - self._age) * _AGE_STEP
        self._owners.correct(route.worker.slot, expected, cached_tokens, turn=turn, age=age)

    def forget(self, slot: int) -> None:
        """The worker's cache is gone."""
        self._owners.forget(slot)

    def news(self) -> list[tuple[int, int]]:
        """Blocks that workers have got, for the other relays."""
        return self._owners.news()

    def merge(self, news: Sequence[tuple[int, int]]) -> None:
        """Blocks that workers have got through other relays."""
        self._owners.merge(news)

    def _list(self, workers: Sequence[Worker]) -> None:
        self._listed, self._changes = workers, self._owners.changes
        self._caches = [self._owners.cache(worker.slot) for worker in workers]
        self._by_bit = {cache.bit: worker for cache, worker in zip(self._caches, workers, strict=True)}

    def _route(self, request: RoutedRequest, worker: Worker, reason: str, blocks: int) -> Route:
        """`blocks`: how many leading ones are in the worker's cache."""
        turn = self._owners.turn
        if not blocks:
            return Route(worker, reason, turn=turn)
        age = self._owners.age(worker.slot, request.blocks[blocks - 1])
        return Route(worker, reason, request.leading_tokens[blocks], age, turn)

    def _cheapest(
        self, request: RoutedRequest, workers: Sequence[Worker], caches: Sequence[Cache], blocks: Sequence[int]
    ) -> tuple[int, str]:
        tokens, all_tokens = request.leading_tokens, request.input_tokens
        most, least = max(blocks), min(blocks)
        self._learn_reuse(all_tokens - tokens[least], tokens[most] - tokens[least])
        copy = self._reuse * min(1.0, _COPY_BY_AGE * self._age)
        again: list[float] = [all_tokens - tokens[count] + copy * (tokens[most] - tokens[count]) for count in blocks]
        if self._reuse > _NO_REUSE:
            again = self._with_dropped(again, caches, request.output_tokens)
        best = _soonest(workers, again, request.output_tokens)
        return best, "cache" if blocks[best] > least else "spread" if most > least else "load"

    def _with_dropped(self, new: list[float], caches: Sequence[Cache], output: int) -> list[float]:
        """To the tokens that a request is new with at each worker, add what is dropped there and will be missed.

        Of full caches, that which drops what was not used for the longest time misses nothing; of others, the emptiest.
        """
        turn = self._owners.turn
        ages: list[float] = []
        for cache, tokens in zip(caches, new, strict=True):
            size, limit = cache.size, cache.limit
            if size + (tokens + output) * _BYTES_PER_TOKEN > limit:
                ages.append(turn - cache.first_use)
            else:
                ages.append(turn * (2 - size / limit))
        oldest = max(ages)
        if oldest == min(ages):
            return new
        reuse = self._reuse
        return [
            tokens if age == oldest else tokens * (1 + reuse * (1 - age / oldest))
            for age, tokens in zip(ages, new, strict=True)
        ]

    def _learn_reuse(self, possible: int, found: int) -> None:
        if possible > 0:
            self._reuse += (found / possible - self._reuse) * _REUSE_STEP

    def _some(self, workers: Sequence[Worker], levels: Sequence[tuple[int, int]]) -> list[Worker]:
        """Those with the most of the prompt, and further ones: each call takes others."""
        chosen: dict[int, Worker] = {}
        for _, bits in reversed(levels):
            for bit in bits_of(bits, _COMPARED_OWNERS - len(chosen)):
                if bit in self._by_bit:
                    chosen[self._by_bit[bit].slot] = self._by_bit[bit]
        number, step = len(workers), len(workers) // _COMPARED
        self._start = (self._start + 1) % number
        for index in range(self._start, self._start + step * (_COMPARED - len(chosen)), step):
            worker = workers[index % number]
            chosen[worker.slot] = worker
        return list(chosen.values())


def _leading_blocks(levels: Sequence[tuple[int, int]], caches: Sequence[Cache]) -> list[int]:
    """How many of a prompt's leading blocks are in each cache."""
    found = [0] * len(caches)
    for count, bits in levels:
        for index, cache in enumerate(caches):
            if cache.bit & bits:
                found[index] = count
    return found


def _soonest(workers: Sequence[Worker], again: Sequence[float], output: int) -> int:
    """Index of the worker with the least estimated time, where `again` tokens are to be computed. Not one of too many.

    The loops are the hot part of a choice: they call next to nothing.
    """
    usable = [worker.capacity if worker.ramp >= 1.0 else max(1.0, worker.capacity * worker.ramp) for worker in workers]
    flights = [worker.in_flight for worker in workers]
    loads = list(map(truediv, flights, usable))
    least = min(loads)
    bound = most_load((sum(flights) + 1) / sum(usable), least)  # more than the mean: not all are above it
    best, best_key = 0, (math.inf, 0.0, 0)
    for index, load in enumerate(loads):
        if load > bound:
            continue
        worker = workers[index]
        cost = worker.pending_tokens + again[index] * (1 + _OTHERS_DELAYED * flights[index])
        cost /= worker.prefill_rate
        busy, beyond = _DECODE_SLOWDOWN * load, load + 1 / usable[index] - 1
        if beyond > 0:  # its capacity
            busy += beyond
        key = (cost + busy * output / worker.decode_rate, load, worker.turn)
        if key < best_key:
            best, best_key = index, key
    return best
