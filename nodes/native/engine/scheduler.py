"""Which requests compute how many tokens in the next step: continuous batching with chunked prefill.

Decoding goes first, so that nobody's stream stalls behind a long prompt; what is left of the token budget goes to
prompts, shorter ones first: they hold up others less. A prompt's rank rises with its age, so that none waits forever.
When blocks run out, the request that ranks last gives up its own and waits; its tokens are kept and computed again,
mostly out of the prefix cache. The request that ranks first is never made to wait, so everything ends.
A request whose client does not read is paused: it holds no blocks until it is resumed.
"""

import heapq
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count

from ..model.logits_budget import LogitsBudget
from .block_manager import BlockManager
from .request import Request


@dataclass(frozen=True, slots=True)
class Slice:
    """The next `count` uncomputed tokens of a request."""

    request: Request
    count: int

    @property
    def reaches_end(self) -> bool:
        """Whether the request's next token can be sampled after this."""
        return self.count == self.request.remaining


def _rank(request: Request) -> tuple[float, int]:
    """The order in which requests are admitted, get tokens of a step and, from its end, are preempted."""
    return request.rank


class WaitingQueue:
    """Requests by rank. Adding and taking one costs O(log n), removing one O(1) on average.

    A request that is removed leaves its entry in the heap, to be dropped when it comes up or when most are such.
    """

    def __init__(self) -> None:
        self._heap: list[tuple[tuple[float, int], int, Request]] = []  # the number in between is never equal
        self._numbers = count()
        self._present: dict[str, Request] = {}

    def __len__(self) -> int:
        return len(self._present)

    def push(self, request: Request) -> None:
        """Add a request that is not there."""
        self._present[request.id] = request
        heapq.heappush(self._heap, (request.rank, next(self._numbers), request))

    def first(self) -> Request | None:
        """The request that ranks first, which stays; None if there is none."""
        while self._heap and not self._is_present(self._heap[0][2]):
            heapq.heappop(self._heap)
        return self._heap[0][2] if self._heap else None

    def remove(self, id: str) -> Request | None:
        """Take out the request of that id; None if it is not there."""
        request = self._present.pop(id, None)
        if len(self._heap) > 2 * len(self._present) + 16:
            self._heap = [entry for entry in self._heap if self._is_present(entry[2])]
            heapq.heapify(self._heap)
        return request

    def _is_present(self, request: Request) -> bool:
        return self._present.get(request.id) is request


@dataclass(slots=True)
class _StepBudget:
    """What one step may still have: tokens, and rows of logits that are for log-probabilities of prompts."""

    tokens: int
    prompt_rows: int

    def take(self, request: Request) -> int:
        """Give a request as many tokens as there are for it, maybe none; how many."""
        count = min(self.tokens, request.tokens_within(self.prompt_rows))
        self.tokens -= count
        self.prompt_rows -= request.prompt_rows(count)
        return count


class Scheduler:
    """The waiting and the running requests. Every request must fit into the blocks when it is alone (see Limits)."""

    def __init__(
        self,
        blocks: BlockManager,
        fail: Callable[[Request, Exception], None],
        *,
        max_running_requests: int,
        max_batch_tokens: int,
        logits: LogitsBudget,
        age_weight: float,
    ) -> None:
        """`age_weight`: tokens of a longer prompt that a second of waiting makes up for.

        `fail` is told which request has raised an exception, and removes it.
        """
        self._blocks, self._fail = blocks, fail
        self._max_running, self._max_tokens, self._logits = max_running_requests, max_batch_tokens, logits
        self._age_weight, self._began = age_weight, time.monotonic()
        self._waiting = WaitingQueue()
        self._pausing: set[str] = set()  # to be paused once no step computes them
        self._paused: dict[str, Request] = {}
        self._running: dict[str, Request] = {}
        self._computing: set[str] = set()  # those in steps that have begun
        self._arrivals = 0
        self.preemptions = 0

    @property
    def num_waiting(self) -> int:
        """Requests that hold no blocks yet, preempted ones included."""
        return len(self._waiting)

    @property
    def num_paused(self) -> int:
        """Requests that hold no blocks until they are resumed."""
        return len(self._paused)

    @property
    def num_running(self) -> int:
        """Requests that hold blocks."""
        return len(self._running)

    def add(self, request: Request) -> None:
        """Queue a request. Shorter prompts go first, but each second of waiting counts as some tokens less."""
        self._arrivals += 1
        # Shortest first, but for age: length - weight * (now - arrival) of two requests compare alike at any time.
        waited_since = 1 + time.monotonic() - self._began
        request.rank = request.prompt_length + self._age_weight * waited_since, self._arrivals
        self._waiting.push(request)

    def pause(self, id: str) -> None:
        """Compute no more of a request until it is resumed, and give its blocks to others."""
        self._pausing.add(id)

    def resume(self, id: str) -> None:
        """Let a paused request go on; nothing happens if it is not paused."""
        self._pausing.discard(id)
        request = self._paused.pop(id, None)
        if request is not None:
            self._waiting.push(request)

    def schedule(self, steps: int = 1) -> list[Slice]:
        """The next step: at most `max_batch_tokens` tokens, one slice for a request.

        Of so many `steps` that are computed at once, each takes its share of the running requests, and none that
        another has begun. Empty only if there are no others.
        """
        for id in self._pausing - self._computing:
            self._set_aside(id)
        preemptions = self.preemptions
        step: dict[str, Slice] = {}
        budget = _StepBudget(self._max_tokens, self._logits.prompt_rows(len(self._running)))
        self._continue_running(step, budget, -(-len(self._running) // steps))
        if self.preemptions == preemptions:  # else the blocks just given up would go straight back
            self._admit(step, budget)
        self._computing.update(step)
        return list(step.values())

    def complete(self, step: Sequence[Slice]) -> None:
        """Note that the model has computed `step`."""
        for slice in step:
            self._computing.discard(slice.request.id)
            try:
                self.advance(slice.request, slice.count)
            except Exception as error:
                self._fail(slice.request, error)

    def reserve(self, request: Request, count: int) -> int:
        """Take blocks for up to `count` draft tokens without preempting any request; returns how many fit."""
        return self._blocks.reserve(request, count, spare=len(self._running))

    def advance(self, request: Request, count: int) -> None:
        """Note that `count` tokens more of a request are computed; nothing happens if it was removed meanwhile."""
        if self._running.get(request.id) is request:
            request.computed += count
            self._blocks.commit(request)

    def remove(self, id: str) -> None:
        """Drop a finished or aborted request, with its blocks; nothing happens if it is gone."""
        self._computing.discard(id)
        self._pausing.discard(id)
        request = self._running.pop(id, None)
        if request:
            self._blocks.free(request)
        elif self._paused.pop(id, None) is None:
            self._waiting.remove(id)

    def _continue_running(self, step: dict[str, Slice], budget: _StepBudget, most: int) -> None:
        """Put up to `most` running requests into `step`, decodes first."""
        for request in sorted(self._idle(), key=lambda request: (request.remaining > 1, _rank(request))):
            if budget.tokens == 0 or len(step) == most:
                break
            if request.id not in self._running:
                continue  # preempted for one before it
            budget.tokens += self._make_room(request, step)
            if request.id in self._running and (count := budget.take(request)):
                step[request.id] = Slice(request, count)

    def _make_room(self, request: Request, step: dict[str, Slice]) -> int:
        """Preempt until `request` has a block for its newest token, itself if it ranks last; the tokens won back."""
        won = 0
        while request.id in self._running and not self._blocks.grow(request):
            victim = max(self._idle(), key=_rank)
            self._preempt(victim)
            if victim.id in step:
                won += step.pop(victim.id).count
        return won

    def _idle(self) -> list[Request]:
        """Those that run and are in no step that has begun."""
        return [request for id, request in self._running.items() if id not in self._computing]

    def _preempt(self, request: Request) -> None:
        del self._running[request.id]
        self._blocks.free(request)
        self._waiting.push(request)
        self.preemptions += 1

    def _set_aside(self, id: str) -> None:
        self._pausing.discard(id)
        request = self._running.pop(id, None)
        if request is not None:
            self._blocks.free(request)
        else:
            request = self._waiting.remove(id)
        if request is not None:
            self._paused[id] = request

    def _admit(self, step: dict[str, Slice], budget: _StepBudget) -> None:
        while budget.tokens and len(self._running) < self._max_running:
            request = self._waiting.first()
            if request is None:
                break
            try:
                # One spare block for each that runs already: else the next steps would preempt what is admitted now.
                room = self._blocks.allocate(request, spare=len(self._running))
            except Exception as error:
                self._fail(request, error)
                continue
            if not room:
                break
            self._waiting.remove(request.id)
            self._running[request.id] = request
            if request.cached is None:
                request.cached = min(request.computed, request.prompt_length)
            if count := budget.take(request):  # else it begins in a later step, and holds up nobody behind it
                step[request.id] = Slice(request, count)
