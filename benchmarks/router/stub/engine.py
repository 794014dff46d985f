"""An engine's time: prefill, decode steps of a batch, and a bounded prefix cache; nothing is computed."""

import asyncio
import math
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec

from .answers import CHARACTERS_PER_TOKEN

BLOCK_TOKENS = 64
_BLOCK = BLOCK_TOKENS * CHARACTERS_PER_TOKEN
_MOST_LATE_S = 0.05  # a step that was late is made up for by at most so much


class Costs(msgspec.Struct, frozen=True, kw_only=True):
    """What an engine can do. With `step_s` = 0 it takes no time at all."""

    step_s: float = 0.0  # of a decode step, whatever the batch
    prefill_rate: float = 0.0  # tokens/s that are not in the cache; 0: at once
    chunk: int = 2048  # prompt tokens that a step may take on
    batch: int = 1024  # requests computed at once
    cache_tokens: int = 0


class PrefixCache:
    """Blocks of prompts, least recently used first to go; the end of a prompt goes before its beginning."""

    def __init__(self, tokens: int) -> None:
        self._most, self._blocks = tokens // BLOCK_TOKENS, OrderedDict[int, None]()

    def match(self, blocks: list[int]) -> int:
        """How many of the first blocks are there."""
        return next((at for at, block in enumerate(blocks) if block not in self._blocks), len(blocks))

    def add(self, blocks: list[int]) -> None:
        """Hold these now."""
        for block in reversed(blocks[: self._most]):
            self._blocks[block] = None
            self._blocks.move_to_end(block)
        while len(self._blocks) > self._most:
            self._blocks.popitem(last=False)


def blocks_of(prompt: str) -> list[int]:
    """Hashes of the whole blocks of a prompt, each of all up to its end."""
    hashes, last = [], 0
    for at in range(0, len(prompt) - _BLOCK + 1, _BLOCK):
        last = hash((last, prompt[at : at + _BLOCK]))
        hashes.append(last)
    return hashes


@dataclass(slots=True, eq=False)
class Job:
    """One request in the engine."""

    tokens: int  # of the prompt
    length: int  # tokens to generate
    emit: Callable[[int], None]  # called with the number of each token as it is made; 0 also for an empty answer
    blocks: list[int] = field(default_factory=list)
    missing: int = 0  # prompt tokens still to compute
    cached: int = 0
    made: int = 0
    cancelled: bool = False


class Engine:
    """Makes tokens in steps, each of which gives one to every running request whose prompt is computed."""

    def __init__(self, costs: Costs) -> None:
        self._costs, self._cache = costs, PrefixCache(costs.cache_tokens)
        self._waiting, self._running = deque[Job](), list[Job]()
        self._due: float | None = None
        self.prompt_tokens = self.cached_tokens = self.generated_tokens = 0

    @property
    def running(self) -> int:
        """Requests being computed."""
        return len(self._running)

    @property
    def waiting(self) -> int:
        """Requests that wait for a place in the batch."""
        return len(self._waiting)

    def submit(self, job: Job, prompt: str) -> None:
        """Begin to compute a request as soon as there is a place."""
        job.blocks = blocks_of(prompt) if self._costs.cache_tokens else []
        self._waiting.append(job)
        if self._due is None:
            self._begin(asyncio.get_running_loop().time())

    def _begin(self, now: float) -> None:
        self._running = [job for job in self._running if not job.cancelled]
        while self._waiting and len(self._running) < self._costs.batch:
            self._admit(self._waiting.popleft())
        if not self._running:
            self._due = None
            return
        spent_s = self._prefill() / (self._costs.prefill_rate or math.inf)
        self._due = max(now if self._due is None else self._due, now - _MOST_LATE_S) + self._costs.step_s + spent_s
        asyncio.get_running_loop().call_at(self._due, self._finish)

    def _admit(self, job: Job) -> None:
        if job.cancelled:
            return
        job.cached = min(self._cache.match(job.blocks) * BLOCK_TOKENS, job.tokens - 1)
        job.missing = job.tokens - job.cached if self._costs.prefill_rate else 0
        self.prompt_tokens += job.tokens
        self.cached_tokens += job.cached
        self._running.append(job)

    def _prefill(self) -> int:
        """Take on prompt tokens in the order of arrival; how many."""
        left = self._costs.chunk
        for job in self._running:
            taken = min(left, job.missing)
            job.missing -= taken
            left -= taken
            if taken and not job.missing:
                self._cache.add(job.blocks)
        return self._costs.chunk - left

    def _finish(self) -> None:
        for job in self._running:
            if job.missing or job.cancelled:
                continue
            job.emit(job.made)
            job.made += 1
            self.generated_tokens += 1
        self._running = [job for job in self._running if job.made < max(1, job.length)]
        self._begin(asyncio.get_running_loop().time())
