"""Workers with prefix caches, simulated in virtual time: what a policy does to throughput and latency.

A worker computes in iterations as engines do: each gives every running sequence a token and takes up to a chunk of
prompt tokens. Its cache holds blocks of prompts, the least recently used go first.
"""

import functools
import heapq
import itertools
import math
import random
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from slurminfer.router.policies.policy import Policy, RoutedRequest

BLOCK_TOKENS = 64
_CHUNK = 2048


@dataclass(frozen=True)
class Speed:
    """What an engine needs: seconds of an iteration, and of each sequence and each prompt token in it."""

    iteration_s: float = 0.015
    sequence_s: float = 0.0003
    token_s: float = 0.0001
    capacity: int = 32
    cache_tokens: int = 65_536
    says_cache_tokens: bool = True


@dataclass(slots=True)
class Asked:
    """A request, and what became of it. Times are seconds."""

    request: RoutedRequest
    arrived: float
    output_tokens: int
    began: float = 0.0
    ended: float = 0.0
    cached: int = 0
    remaining: int = 0  # prompt tokens to be computed
    pending: int = 0  # prompt tokens that the router expects to be computed
    follow: Callable[[float], None] | None = None  # called at its end


@dataclass(eq=False)
class Engine:
    """One simulated worker, with what the router knows of it."""

    slot: int
    speed: Speed
    ramp: float = 1.0
    ends_at: float | None = None
    choosable: bool = True
    pool: str = "pool"
    model: str = "m"
    in_flight: int = 0
    pending_tokens: int = 0
    turn: int = 0
    prefilled_tokens: int = 0
    _waiting: deque[Asked] = field(default_factory=deque)
    _running: list[tuple[int, int, Asked]] = field(default_factory=list)  # by the iteration of the last token
    _cache: OrderedDict[int, int] = field(default_factory=OrderedDict)  # block -> tokens
    _held: int = 0
    _iteration: int = 0
    _serial: "itertools.count[int]" = field(default_factory=itertools.count)
    _prefilling: deque[Asked] = field(default_factory=deque)
    busy: bool = False

    @property
    def usable_capacity(self) -> float:
        return max(1.0, self.capacity * self.ramp)

    @property
    def id(self) -> str:
        return f"pool-{self.slot}"

    @property
    def capacity(self) -> int:
        return self.speed.capacity

    @property
    def cache_tokens(self) -> int | None:
        return self.speed.cache_tokens if self.speed.says_cache_tokens else None

    @property
    def prefill_rate(self) -> float:
        return 1 / self.speed.token_s

    @property
    def decode_rate(self) -> float:
        return 1 / (self.speed.iteration_s + self.speed.sequence_s * self.speed.capacity / 2)

    def take(self, asked: Asked) -> None:
        self._waiting.append(asked)

    def iterate(self) -> tuple[float, list[Asked]]:
        """Seconds of the next iteration, and the requests whose prompts are complete at its end."""
        while self._waiting and len(self._running) + len(self._prefilling) < self.speed.capacity:
            asked = self._waiting.popleft()
            asked.cached = self._match(asked.request.blocks)
            asked.remaining = max(1, asked.request.input_tokens - asked.cached)
            self._prefilling.append(asked)
        budget, done = _CHUNK, []
        while self._prefilling and budget:
            asked = self._prefilling[0]
            taken = min(budget, asked.remaining)
            budget -= taken
            asked.remaining -= taken
            if not asked.remaining:
                done.append(self._prefilling.popleft())
        computed = _CHUNK - budget
        self.prefilled_tokens += computed
        seconds = self.speed.iteration_s + self.speed.sequence_s * len(self._running) + self.speed.token_s * computed
        return seconds, done

    def finish(self, now: float, done: list[Asked]) -> list[Asked]:
        """End an iteration. Returns the requests that are answered."""
        self._iteration += 1
        for asked in done:
            asked.began = now
            for block in reversed(asked.request.blocks):
                self._keep(block, BLOCK_TOKENS)
            heapq.heappush(self._running, (self._iteration + asked.output_tokens, next(self._serial), asked))
        answered = []
        while self._running and self._running[0][0] <= self._iteration:
            asked = heapq.heappop(self._running)[2]
            asked.ended = now
            tail = asked.request.input_tokens - BLOCK_TOKENS * len(asked.request.blocks) + asked.output_tokens
            self._keep(-next(self._serial) - 1, tail)
            answered.append(asked)
        return answered

    @property
    def has_work(self) -> bool:
        return bool(self._waiting or self._prefilling or self._running)

    def _match(self, blocks: Sequence[int]) -> int:
        count = 0
        for block in blocks:
            if block not in self._cache:
                break
            count += 1
        for block in reversed(blocks[:count]):
            self._cache.move_to_end(block)
        return count * BLOCK_TOKENS

    def _keep(self, key: int, tokens: int) -> None:
        if key in self._cache:
            self._cache.move_to_end(key)
            return
        self._cache[key] = tokens
        self._held += tokens
        while self._held > self.speed.cache_tokens:
            self._held -= self._cache.popitem(last=False)[1]


@dataclass
class Outcome:
    """What was measured over all requests but the first fifth."""

    throughput: float  # answered requests/s
    p50_ttft: float
    p90_ttft: float
    hit_rate: float  # part of the prompt tokens that was found in caches
    shares: list[float]  # part of the requests that each worker got

    def __str__(self) -> str:
        shares = f"{min(self.shares):.2f}..{max(self.shares):.2f}"
        return (
            f"{self.throughput:7.1f}/s  TTFT p50 {self.p50_ttft:6.3f} s, p90 {self.p90_ttft:6.3f} s"
            f"  hits {self.hit_rate:.2f}  shares {shares}"
        )


class Fleet:
    """Workers behind one or several relays' policies.

    overcommit: requests in flight relative to the capacity of all workers; the others wait in the router, first in,
    first out, and a worker is chosen when they are sent.
    """

    def __init__(self, policies: Sequence[Policy], workers: int, speed: Speed, overcommit: float = math.inf) -> None:
        self._slots = workers * speed.capacity * overcommit
        self._in_flight = 0
        self._waiting: deque[Asked] = deque()
        self.engines = [Engine(slot, speed) for slot in range(workers)]
        self._policies = policies
        self._events: list[tuple[float, int, Callable[[float], None]]] = []
        self._serial = itertools.count()
        self._turn = 0
        self.asked: list[tuple[Asked, Engine]] = []

    def at(self, time: float, event: Callable[[float], None]) -> None:
        heapq.heappush(self._events, (time, next(self._serial), event))

    def run(self) -> None:
        while self._events:
            time, _, event = heapq.heappop(self._events)
            event(time)

    def submit(self, asked: Asked, now: float) -> None:
        self._waiting.append(asked)
        self._let_in(now)

    def _let_in(self, now: float) -> None:
        while self._waiting and self._in_flight + 1 <= self._slots:
            self._in_flight += 1
            self._send(self._waiting.popleft(), now)

    def _send(self, asked: Asked, now: float) -> None:
        self._turn += 1
        index = self._turn % len(self._policies)
        policy = self._policies[index]
        if len(self._policies) > 1:
            self._exchange()
        route = policy.choose(asked.request, self.engines)
        assert route is not None
        engine = self.engines[route.worker.slot]
        policy.sent(asked.request, engine)
        pending = asked.request.input_tokens - route.cached_tokens
        engine.turn = self._turn
        engine.in_flight += 1
        engine.pending_tokens += pending
        self.asked.append((asked, engine))
        follow = asked.follow

        def answered(time: float) -> None:
            engine.in_flight -= 1
            self._in_flight -= 1
            policy.corrected(route, asked.cached)
            self._let_in(time)
            if follow is not None:
                follow(time)

        asked.follow = answered
        engine.take(asked)
        asked.pending = pending
        if not engine.busy:
            self._begin(engine, now)

    def _begin(self, engine: Engine, now: float) -> None:
        engine.busy = True
        seconds, done = engine.iterate()
        self.at(now + seconds, lambda time: self._end(engine, time, done))

    def _end(self, engine: Engine, now: float, done: list[Asked]) -> None:
        for asked in done:
            engine.pending_tokens -= asked.pending
        answered = engine.finish(now, done)
        engine.busy = False
        for asked in answered:
            if asked.follow is not None:
                asked.follow(now)
        if engine.has_work and not engine.busy:
            self._begin(engine, now)

    def _exchange(self) -> None:
        for policy in self._policies:
            news = policy.news()
            if news:
                for other in self._policies:
                    if other is not policy:
                        other.merge(news)

    def outcome(self) -> Outcome:
        asked = [one for one in self.asked if one[0].ended]
        asked = sorted(asked, key=lambda one: one[0].arrived)[len(asked) // 5 :]
        waits = sorted(one.began - one.arrived for one, _ in asked)
        first = min(one.arrived for one, _ in asked)
        last = max(one.arrived for one, _ in asked)
        counted = sum(first <= one.ended <= last for one, _ in self.asked)
        return Outcome(
            throughput=counted / max(last - first, 1e-9),
            p50_ttft=waits[len(waits) // 2],
            p90_ttft=waits[len(waits) * 9 // 10],
            hit_rate=sum(one.cached for one, _ in asked) / sum(one.request.input_tokens for one, _ in asked),
            shares=[sum(engine is mine for _, mine in asked) / len(asked) for engine in self.engines],
        )


Prompts = Callable[[int], tuple[list[int], int, int]]
"""Of the request of a number: its blocks, the tokens after them, and the tokens of its answer."""


def request_of(blocks: list[int], tail: int, output: int, session: str | None = None) -> RoutedRequest:
    """A request of so many blocks, and so many tokens after them."""
    tokens = range(0, (len(blocks) + 2) * BLOCK_TOKENS, BLOCK_TOKENS)
    return RoutedRequest(
        "/v1/completions", "m", "t", session, len(blocks) * BLOCK_TOKENS + tail, output, blocks, tokens
    )


def block_names(rng: random.Random, count: int) -> list[int]:
    """Random hashes of blocks of the smallest size."""
    return [rng.getrandbits(58) << 4 for _ in range(count)]


def shared_prefixes(
    prefixes: int, blocks: int, *, zipf: float = 0.0, system: int = 0, tail_blocks: int = 2, output: int = 64
) -> Prompts:
    """Prompts that begin with one of several prefixes, all equally often or by Zipf's law, and end on their own.

    system: blocks that all of them begin with.
    """
    rng = random.Random(1)
    common = block_names(rng, system)
    heads = [common + block_names(rng, blocks) for _ in range(prefixes)]
    weights = [1 / (rank + 1) ** zipf for rank in range(prefixes)]
    sums = list(itertools.accumulate(weights))

    def prompt(number: int) -> tuple[list[int], int, int]:
        one = random.Random(number)
        head = one.choices(heads, cum_weights=sums)[0]
        return head + block_names(one, tail_blocks), 32, max(1, int(one.expovariate(1 / output)))

    return prompt


def unique_prompts(blocks: int, output: int = 64) -> Prompts:
    """Prompts of different lengths that share nothing."""

    def prompt(number: int) -> tuple[list[int], int, int]:
        one = random.Random(number)
        count = max(1, int(one.expovariate(1 / blocks)))
        return block_names(one, min(count, blocks * 5)), 32, max(1, int(one.expovariate(1 / output)))

    return prompt


def open_loop(
    policies: Sequence[Policy], prompts: Prompts, *, rate: float, requests: int, workers: int, speed: Speed,
    overcommit: float = math.inf, usual_output: int = 64,
) -> Outcome:  # fmt: skip
    """Requests that arrive at random moments, so many a second. The router takes answers to be `usual_output` long."""
    fleet = Fleet(policies, workers, speed, overcommit)
    rng = random.Random(2)
    now = 0.0
    for number in range(requests):
        now += rng.expovariate(rate)
        blocks, tail, output = prompts(number)
        asked = Asked(request_of(blocks, tail, usual_output), now, output)
        fleet.at(now, functools.partial(fleet.submit, asked))
    fleet.run()
    return fleet.outcome()


def closed_loop(
    policies: Sequence[Policy], prompts: Prompts, *, clients: int, requests: int, workers: int, speed: Speed,
    overcommit: float = math.inf,
) -> Outcome:  # fmt: skip
    """So many clients, each of which asks again as soon as it has its answer: the throughput at saturation."""
    fleet = Fleet(policies, workers, speed, overcommit)
    numbers = iter(range(requests))

    def ask(time: float) -> None:
        number = next(numbers, None)
        if number is not None:
            blocks, tail, output = prompts(number)
            fleet.submit(Asked(request_of(blocks, tail, 64), time, output, follow=ask), time)

    for client in range(clients):
        fleet.at(client * 0.01, ask)
    fleet.run()
    return fleet.outcome()


def chats(
    policies: Sequence[Policy], *, rate: float, conversations: int, turns: int, workers: int, speed: Speed
) -> Outcome:
    """Conversations that begin at random moments; each turn's prompt has all turns before it, and a pause before it."""
    fleet = Fleet(policies, workers, speed)
    arrivals = random.Random(3)
    system = block_names(random.Random(4), 8)
    now = 0.0

    def say(one: random.Random, blocks: list[int], left: int) -> Callable[[float], None]:
        def event(time: float) -> None:
            said = blocks + block_names(one, 6)

            def follow(ended: float) -> None:
                if left > 1:
                    fleet.at(ended + one.expovariate(1 / 5), say(one, said, left - 1))

            output = max(1, int(one.expovariate(1 / 64)))
            fleet.submit(Asked(request_of(said, 32, 64), time, output, follow=follow), time)

        return event

    for number in range(conversations):
        now += arrivals.expovariate(rate)
        fleet.at(now, say(random.Random(number), system, turns))
    fleet.run()
    return fleet.outcome()
