"""The policy `cache_aware`."""

import math
from collections.abc import Sequence

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
# request's own. With 0 each request would take the shortest way for itself, and fill all caches with the same while
# little is known of them. With more, few hot beginnings come late to the other caches.
_OTHERS_DELAYED = 0.15
# The part of one request in the average of how much of prompts is found again, and what is taken until that is known.
_REUSE_STEP = 1 / 128
_USUAL_REUSE = 0.5
_NO_REUSE = 0.01
# The pressure on the caches, from 0 to 1: the part of prompts that is found again, times how long that was not used,
# relative to how long caches keep it. Where all is found soon (few hot beginnings), a copy displaces only what nobody
# asks for. Where it is found late (about 0.3: random ones that fill three quarters of the caches), a copy makes caches
# drop much too early, as long as it is there: it costs as much as computing it so many times, by the pressure.
_COPY = 24.0
# By the pressure, a worker may be so much further above the mean load: waiting there is cheaper then than a copy.
_MORE_LOAD = 3.0
_AGE_STEP = 1 / 64
_BYTES_PER_TOKEN = 4.0

_Level = tuple[int, int]  # a number of leading blocks, and the bits of the workers that have just so many


class CacheAware:
    """The worker where a request is done the soonest, with what each has of its prompt in its cache.

    The time is estimated from what waits there, the prompt tokens that are not in its cache, and the answers in
    progress. No worker gets much more than the mean load, so that a beginning that all requests share is soon in all
    caches. But where caches are used to their end, requests rather wait for the worker that has their beginning than
    make a copy of it. A beginning that no cache has goes where the least useful cache content makes way for it, as far
    as beginnings are found again at all: so the caches of all workers together keep the most recently used ones.
    """

    def __init__(self, relay: int = 0) -> None:
        self._owners = Owners(relay=relay)
        self._reuse = _USUAL_REUSE  # part of the prompt tokens, beyond what all workers have, that some cache has
        self._age = 0.0  # mean time since the last use of what is found, relative to how long caches keep it
        self._start = relay * 7
        self._listed: Sequence[Worker] = ()  # for which the next four are
        self._caches: list[Cache] = []
        self._by_bit: dict[int, int] = {}  # indices of those of which something is known
        self._bits = 0  # of these
        self._changes = -1

    def choose(self, request: RoutedRequest, workers: Sequence[Worker]) -> Route | None:
        """The worker with the least estimated time; None if there are none."""
        if not workers:
            return None
        owners = self._owners
        if workers is not self._listed or owners.changes != self._changes:
            self._list(workers)
        levels, caches, bits = owners.levels(request.blocks), self._caches, self._bits
        if len(workers) > _COMPARED:
            workers, caches, bits = self._some(workers, levels)
        if levels and bits != owners.live:
            levels = [(count, held) for count, holders in levels if (held := holders & bits)]
        if len(workers) == 1:
            return self._route(request, workers[0], "only", levels[0][0] if levels else 0)
        return self._cheapest(request, workers, caches, levels)

    def sent(self, request: RoutedRequest, worker: Worker) -> None:
        """The worker is taken to hold the whole prompt from now on."""
        blocks, tokens = request.blocks, request.leading_tokens
        bytes_per_token = SMALLEST / tokens[1]
        beyond, cache_tokens = request.input_tokens - tokens[len(blocks)], worker.cache_tokens
        after = request.output_tokens + beyond if beyond > 0 else request.output_tokens
        holds = math.inf if cache_tokens is None else cache_tokens * bytes_per_token
        self._owners.add(worker.slot, blocks, int(after * bytes_per_token), holds)

    def corrected(self, route: Route, cached_tokens: int) -> None:
        """The model of the worker's cache learns from what the engine found in it."""
        owners, expected = self._owners, route.cached_tokens
        owners.correct(route.worker.slot, expected, cached_tokens, turn=route.turn, age=route.cached_age)

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
        self._by_bit = {cache.bit: index for index, cache in enumerate(self._caches) if cache.bit}
        self._bits = sum(self._by_bit)

    def _route(self, request: RoutedRequest, worker: Worker, reason: str, blocks: int) -> Route:
        """`blocks`: how many leading ones are in the worker's cache."""
        turn = self._owners.turn
        if not blocks:
            return Route(worker, reason, turn=turn)
        age, age_in_full = self._owners.age(worker.slot, request.blocks[blocks - 1])
        if reason == "cache":  # not for what all workers have
            self._age += (age_in_full - self._age) * _AGE_STEP
        return Route(worker, reason, request.leading_tokens[blocks], age, turn)

    def _cheapest(
        self, request: RoutedRequest, workers: Sequence[Worker], caches: Sequence[Cache], levels: Sequence[_Level]
    ) -> Route:
        tokens, all_tokens, output = request.leading_tokens, request.input_tokens, request.output_tokens
        most = levels[-1][0] if levels else 0
        least = levels[0][0] if levels and sum([bits for _, bits in levels]).bit_count() == len(workers) else 0
        possible = all_tokens - tokens[least]
        if possible > 0:
            self._reuse += ((tokens[most] - tokens[least]) / possible - self._reuse) * _REUSE_STEP
        pressure = self._reuse * self._age
        copy = _COPY * pressure
        nothing_found = all_tokens + copy * tokens[most]
        again, blocks = [nothing_found - (1.0 + copy) * tokens[least]] * len(workers), [least] * len(workers)
        for count, bits in levels:
            if count > least:
                its = nothing_found - (1.0 + copy) * tokens[count]
                for index, cache in enumerate(caches):
                    if cache.bit & bits:
                        again[index], blocks[index] = its, count
        if self._reuse > _NO_REUSE:
            again = self._with_dropped(again, caches, output)
        best = _soonest(workers, again, output, 1.0 + _MORE_LOAD * pressure)
        reason = "cache" if blocks[best] > least else "spread" if most > least else "load"
        return self._route(request, workers[best], reason, blocks[best])

    def _with_dropped(self, new: list[float], caches: Sequence[Cache], output: int) -> list[float]:
        """To the tokens that a request is new with at each worker, add what is dropped there and will be missed.

        Of full caches, that which drops what was not used for the longest time misses nothing; of others, the emptiest.
        """
        turn = self._owners.turn
        ages = [
            cache.room
            if cache.size + (tokens + output) * _BYTES_PER_TOKEN <= cache.limit
            else 1.0 - cache.first_use / turn
            for cache, tokens in zip(caches, new)  # noqa: B905 (the check of lengths takes time)
        ]
        oldest = max(ages)
        if oldest == min(ages):
            return new
        missed = self._reuse / oldest
        return [tokens + tokens * missed * (oldest - age) for age, tokens in zip(ages, new)]  # noqa: B905

    def _some(self, workers: Sequence[Worker], levels: Sequence[_Level]) -> tuple[list[Worker], list[Cache], int]:
        """Those with the most of the prompt, and further ones: each call takes others. With their caches and bits."""
        chosen: dict[int, None] = {}  # indices
        for _, bits in reversed(levels):
            for bit in bits_of(bits, _COMPARED_OWNERS - len(chosen)):
                if bit in self._by_bit:
                    chosen[self._by_bit[bit]] = None
        number, step = len(workers), len(workers) // _COMPARED
        self._start = (self._start + 1) % number
        for index in range(self._start, self._start + step * (_COMPARED - len(chosen)), step):
            chosen[index % number] = None
        caches = [self._caches[index] for index in chosen]
        return [workers[index] for index in chosen], caches, sum([cache.bit for cache in caches])


def _soonest(workers: Sequence[Worker], again: Sequence[float], output: int, slack: float) -> int:
    """Index of the worker with the least estimated time, where `again` tokens are to be computed.

    slack: no worker is chosen whose load is above `most_load` times this.

    The loops are the hot part of a choice: they call next to nothing.
    """
    loads: list[float] = []
    in_flight, usable, lowest = 1, 0.0, math.inf
    for worker in workers:
        in_flight += worker.in_flight
        usable += worker.usable_capacity
        load = worker.in_flight / worker.usable_capacity
        loads.append(load)
        if load < lowest:
            lowest = load
    bound = most_load(in_flight / usable, lowest) * slack  # more than the mean: not all are above it
    best, least, least_load, turn = 0, math.inf, math.inf, 0
    for index, (worker, load) in enumerate(zip(workers, loads)):  # noqa: B905
        if load > bound:
            continue
        cost = (worker.pending_tokens + again[index] * (1.0 + _OTHERS_DELAYED * worker.in_flight)) / worker.prefill_rate
        if cost > least:
            continue
        busy, beyond = _DECODE_SLOWDOWN * load, load + 1.0 / worker.usable_capacity - 1.0
        if beyond > 0.0:  # its capacity
            busy += beyond
        cost += busy * output / worker.decode_rate
        if cost < least or (cost == least and (load, worker.turn) < (least_load, turn)):
            best, least, least_load, turn = index, cost, load, worker.turn
    return best
