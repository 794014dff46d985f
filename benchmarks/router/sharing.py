"""Whether a router finds the caches: prompts that share prefixes, before workers with a bounded prefix cache.

The workers compute nothing but take the time of an engine: prefill at so many tokens a second of what is not in their
cache, decode steps of a batch. Requests come at random moments at a given rate, whatever is answered (an open loop).

- shared: 2,400 tokens of prefix and 300 of one's own; so many prefixes that all together need 0.73 of the caches of the
  fleet, which is 5.8 of one worker's. The rate is swept through saturation.
- hot: three such prefixes for everybody. Whoever sends each to one worker leaves the others idle.
- unique: nothing is shared; nothing can be won, only lost.
"""

import asyncio
import random
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import uvloop

from .client import Answer, Connection, request_of
from .fleet import MODEL, Address, Fleet
from .measure import Figures, quantile
from .stub.__main__ import Configuration
from .stub.answers import CHARACTERS_PER_TOKEN, WORDS, answer_to
from .stub.answers import Answer as Text
from .stub.engine import Costs
from .targets import Starter, Target

WORKERS = 8
PREFIX_TOKENS, OWN_TOKENS, OUTPUT_TOKENS = 2_400, 300, 32
PREFIXES, HOT_PREFIXES = 73, 3
COSTS = Costs(step_s=0.025, prefill_rate=8_000, chunk=2_048, batch=16, cache_tokens=PREFIX_TOKENS * 100 // WORKERS)
# Requests/s of the fleet. It saturates at about 22 without any cached prompt, and at about 90 with all of them.
RATES = {"shared": (30.0, 50.0, 70.0, 90.0), "hot": (60.0, 90.0), "unique": (15.0, 22.0)}
LOADS = tuple(RATES)
_WARM_SHARE = 0.4  # of the time at each rate, whose requests are not counted
_PATIENCE_S = 60.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """One request of the open loop."""

    sent: float
    answer: Answer
    right: bool


class Prompts:
    """The requests of one load, the same for every router."""

    def __init__(self, load: str, seed: int) -> None:
        self._rng = random.Random(seed)
        count = {"shared": PREFIXES, "hot": HOT_PREFIXES, "unique": 0}[load]
        self._prefixes = [words(random.Random(number), PREFIX_TOKENS) for number in range(count)]

    def next(self) -> dict[str, Any]:
        """A chat request, streamed."""
        prefix = self._rng.choice(self._prefixes) if self._prefixes else words(self._rng, PREFIX_TOKENS)
        own = words(self._rng, OWN_TOKENS)
        return {
            "model": MODEL, "stream": True, "max_tokens": OUTPUT_TOKENS, "ignore_eos": True,
            "messages": [{"role": "system", "content": prefix}, {"role": "user", "content": own}],
        }  # fmt: skip


def words(rng: random.Random, tokens: int) -> str:
    """Random text of so many tokens."""
    length = tokens * CHARACTERS_PER_TOKEN
    return "".join(rng.choices(WORDS, k=length // len(WORDS[0]) + 1))[:length]


class OpenLoop:
    """Clients that come at random moments; connections are kept for those that come later."""

    def __init__(self, target: Target, prompts: Prompts, rate: float) -> None:
        self._target, self._prompts, self._rate = target, prompts, rate
        self._idle: list[Connection] = []
        self._outcomes: list[Outcome] = []

    async def run(self, seconds: float) -> list[Outcome]:
        """Send for so long, wait for the last answers."""
        rng, due, ends = random.Random(1), time.monotonic(), time.monotonic() + seconds
        async with asyncio.TaskGroup() as tasks:
            while due < ends:
                await asyncio.sleep(max(0.0, due - time.monotonic()))
                tasks.create_task(self._one(self._prompts.next()))
                due += rng.expovariate(self._rate)
        for connection in self._idle:
            connection.close()
        return self._outcomes

    async def _one(self, fields: dict[str, Any]) -> None:
        sent = time.monotonic()
        connection = self._idle.pop() if self._idle else None
        if connection is None or connection.lost:
            connection = await Connection.open(self._target)
        try:
            async with asyncio.timeout(_PATIENCE_S):
                answer = await connection.ask(request_of(self._target, fields))
        except TimeoutError:
            connection.close()
            answer = Answer(sent, took_s=_PATIENCE_S, first_s=_PATIENCE_S)
        else:
            self._idle.append(connection)
        self._outcomes.append(Outcome(sent, answer, is_right(answer, answer_to(fields))))


def is_right(answer: Answer, expected: Text) -> bool:
    """Whether all of a stream has come."""
    body = bytes(answer.body)
    return answer.complete and body.endswith(b"data: [DONE]\n\n") and body.count(b'"content"') >= len(expected.pieces)


async def measure(target: Target, load: str, rate: float, seconds: float, workers: list[Address]) -> Figures:
    """One rate at one router. Throughput is that of the measured time, in requests that were answered in it."""
    began, before = time.monotonic(), await asyncio.to_thread(cached, workers)
    outcomes = await OpenLoop(target, Prompts(load, int(rate)), rate).run(seconds)
    after = await asyncio.to_thread(cached, workers)
    first, last = began + _WARM_SHARE * seconds, began + seconds
    counted = [one for one in outcomes if first <= one.sent < last]
    ended = [one for one in outcomes if one.right and first <= one.sent + one.answer.took_s < last]
    waits = [one.answer.first_s if one.right else _PATIENCE_S for one in counted]
    return {
        "rate": rate,
        "answered_per_s": len(ended) / (last - first),
        "tokens_per_s": OUTPUT_TOKENS * len(ended) / (last - first),
        "p50_ttft_s": quantile(waits, 0.5),
        "p90_ttft_s": quantile(waits, 0.9),
        "failed": sum(not one.right for one in outcomes),
        "cached": (after[1] - before[1]) / max(1, after[0] - before[0]),
    }


def cached(workers: list[Address]) -> tuple[int, int]:
    """Prompt tokens of all workers so far, and those of them that were in a cache."""
    states = [msgspec.json.decode(worker.get("/server_info")) for worker in workers]
    return sum(state["prompt_tokens"] for state in states), sum(state["cached_tokens"] for state in states)


def run(
    folder: Path, starters: dict[str, Starter], loads: list[str], seconds: float
) -> dict[str, dict[str, list[Figures]]]:
    """For each load and router, the figures at each rate. Routers and workers start anew for each load."""
    found: dict[str, dict[str, list[Figures]]] = {load: {} for load in loads}
    for load in loads:
        for name, start in starters.items():
            home = folder / f"sharing-{load}-{name.replace(', ', '-').replace(' ', '-')}"
            home.mkdir(0o700)
            with ExitStack() as stack:
                fleet = stack.enter_context(Fleet(home, WORKERS, Configuration(sockets=[], costs=COSTS)))
                target = stack.enter_context(start(home, fleet.workers, capacity=COSTS.batch))
                found[load][name] = []
                for rate in RATES[load]:
                    if target.records is not None:
                        target.records.beat()
                    figures = uvloop.run(measure(target, load, rate, seconds, fleet.workers))
                    found[load][name].append(figures)
                    print(f"{load}: {name}: {figures}", file=sys.stderr)
    return found
