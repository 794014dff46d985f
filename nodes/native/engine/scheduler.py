"""Which requests compute how many tokens in the next step: continuous batching with chunked prefill.

Decoding goes first, so that nobody's stream stalls behind a long prompt; what a step may take beside it, in tokens and
in time, goes to prompts. Half of that goes to the prompt that ranks first: a short one or one that has waited. The rest
goes to the shortest ones: they hold up others less. So neither short prompts nor long ones wait forever.

Requests that came together, as the prompts of one HTTP request do, are a flow. Flows take turns: of each, one request
waits among those of others, and when there is no room, each flow gets one request in before any has two.

When blocks run out, the request that ranks last gives up its own and waits, of flows with several requests first; its
tokens are kept and computed again, mostly out of the prefix cache. A request whose client does not read is paused: it
holds no blocks until it is resumed. One whose grammar's mask is being computed sits out. The choices of one prompt wait
until the first of them has computed it.
"""

import math
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from ..model.logits_budget import LogitsBudget
from .block_manager import BlockManager
from .request import Request
from .scheduling.shared_prompts import SharedPrompts
from .scheduling.step_budget import StepBudget, prompt_seconds
from .scheduling.step_time import StepTime, StepWork
from .scheduling.waiting import WaitingQueue

_FIRST_SHARE = 0.5  # of what a step computes of prompts, for the one that ranks first while those of others wait


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
        target_s: float = math.inf,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        Args:
            age_weight: tokens of a longer prompt that a second of waiting makes up for.
            target_s: seconds that a step in which sequences decode should take; of all steps that go on at once.
            fail: is told which request has raised an exception, and removes it.
            clock: seconds.
        """
        self._blocks, self._fail = blocks, fail
        self._max_running, self._max_tokens, self._logits = max_running_requests, max_batch_tokens, logits
        self._age_weight, self._clock, self._began = age_weight, clock, clock()
        self._first_share = 1.0 if age_weight == math.inf else _FIRST_SHARE  # inf: first come, first served
        self._target_s, self._time = target_s, StepTime()
        self._waiting = WaitingQueue(self._next_rank)
        self._shared = SharedPrompts(blocks.block_size)
        self._pausing: set[str] = set()  # to be paused once no step computes them
        self._paused: dict[str, Request] = {}
        self._running: dict[str, Request] = {}
        self._flows: Counter[str] = Counter()  # of the running ones
        self._computing: set[str] = set()  # those in steps that have begun
        self._turns = 0
        self.preemptions = 0

    @property
    def num_waiting(self) -> int:
        """Requests that hold no blocks yet, preempted ones included."""
        return len(self._waiting) + len(self._shared)

    @property
    def num_paused(self) -> int:
        """Requests that hold no blocks until they are resumed."""
        return len(self._paused)

    @property
    def num_running(self) -> int:
        """Requests that hold blocks."""
        return len(self._running)

    def add(self, request: Request) -> None:
        """Queue a request. Shorter prompts go first, but each second of waiting counts as some tokens less.

        One whose prompt another request of its flow computes already is queued when that is done.
        """
        if not self._shared.waits(request):
            self._waiting.push(request)

    def _next_rank(self, request: Request) -> tuple[float, int]:
        """The rank of a request that waits from now on."""
        self._turns += 1
        # Shortest first, but for age: length - weight * (now - arrival) of two requests compare alike at any time.
        waits_since = 1 + self._clock() - self._began
        return request.prompt_length + self._age_weight * waits_since, self._turns

    def pause(self, id: str) -> None:
        """Compute no more of a request until it is resumed, and give its blocks to others."""
        self._pausing.add(id)

    def resume(self, id: str) -> None:
        """Let a paused request go on; nothing happens if it is not paused."""
        self._pausing.discard(id)
        request = self._paused.pop(id, None)
        if request is not None:
            self._waiting.push_again(request)

    def schedule(self, steps: int = 1) -> list[Slice]:
        """The next step: at most `max_batch_tokens` tokens, one slice for a request.

        Of so many `steps` that are computed at once, each takes its share of the running requests, and none that
        another has begun. Empty only if there are no others.
        """
        for id in self._pausing - self._computing:
            self._set_aside(id)
        preemptions = self.preemptions
        step: dict[str, Slice] = {}
        budget = StepBudget(self._max_tokens, self._logits.prompt_rows(len(self._running)), self._time)
        most = -(-len(self._running) // steps)
        self._decode(step, budget, most)
        decodes = max(len(step), int(any(request.generated for request in self._running.values())))
        budget.seconds = prompt_seconds(self._time, decodes, self._target_s / steps)
        # Else the blocks just given up would go straight back.
        self._compute_prompts(step, budget, most, admits=self.preemptions == preemptions)
        self._computing.update(step)
        return list(step.values())

    def observe(self, work: StepWork, seconds: float) -> None:
        """Learn from a step that has taken so many seconds beside those before and after it."""
        self._time.observe(work, seconds)

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
            if not request.in_prompt:
                for other in self._shared.leave(request.id):
                    self._waiting.push(other)

    def remove(self, id: str) -> None:
        """Drop a finished or aborted request, with its blocks; nothing happens if it is gone."""
        self._computing.discard(id)
        self._pausing.discard(id)
        if id in self._running:
            self._stop(id)
        elif self._paused.pop(id, None) is None:
            self._take_waiting(id)
        self._leave_prompt(id)

    def _take_waiting(self, id: str) -> Request | None:
        return self._waiting.remove(id) or self._shared.take(id)

    def _leave_prompt(self, id: str) -> None:
        """Let another request compute the prompt that one has left."""
        for other in self._shared.leave(id):
            self.add(other)

    def _decode(self, step: dict[str, Slice], budget: StepBudget, most: int) -> None:
        """Put up to `most` running requests into `step` whose next token comes of it."""
        for request in sorted((each for each in self._idle() if each.remaining == 1 and not each.is_late), key=_rank):
            if budget.tokens == 0 or len(step) == most:
                break
            if request.id in self._running:  # else it was preempted for one before it
                self._make_room(request, step, budget)
            if request.id in self._running and (count := budget.take(request)):
                step[request.id] = Slice(request, count)

    def _compute_prompts(self, step: dict[str, Slice], budget: StepBudget, most: int, *, admits: bool) -> None:
        """Put pieces of prompts into `step`: the one that ranks first gets half of the budget if others wait.

        Up to `most` requests are running ones, and no others are computed unless `admits`.
        """
        begun = deque(sorted((each for each in self._idle() if each.remaining > 1), key=lambda each: each.remaining))
        first = min(begun, key=_rank, default=None)
        waiting = self._waiting.first() if admits else None
        if waiting is not None and (first is None or _rank(waiting) < _rank(first)):
            waiting = self._admit(waiting, step, budget)
            admits, first = waiting is not None, waiting or first
        elif len(step) >= most:
            first = None
        if first is not None:
            others = any(each.flow != first.flow for each in begun) or self._waiting.has_others(first.flow)
            self._put(first, step, budget, share=self._first_share if others else 1.0)
        while not budget.is_spent:
            shortest = self._waiting.shortest() if admits else None
            if begun and (shortest is None or begun[0].remaining <= shortest.remaining):
                request = begun.popleft()
                if request is not first and request.id in self._running and len(step) < most:
                    self._put(request, step, budget)
            elif shortest is None or (admitted := self._admit(shortest, step, budget)) is None:
                admits = False
                if not begun:
                    break
            else:
                self._put(admitted, step, budget)  # nothing: it begins later, and holds up nobody behind it
        if first is not None and first.id in step and not budget.is_spent:
            budget.give_back(first, step[first.id].count)
            self._put(first, step, budget)

    @staticmethod
    def _put(request: Request, step: dict[str, Slice], budget: StepBudget, share: float = 1.0) -> None:
        if count := budget.take(request, share=share):
            step[request.id] = Slice(request, count)

    def _admit(self, request: Request, step: dict[str, Slice], budget: StepBudget) -> Request | None:
        """Let a waiting request run, or one whose flow has none if there is no room; the one that does."""
        if len(self._running) < self._max_running and self._start(request):
            return request
        turn = self._waiting.first_of_others(self._flows)
        if turn is not None and self._make_way(turn, step, budget) and self._start(turn):
            return turn
        return None

    def _start(self, request: Request) -> bool:
        """Give blocks to a waiting request; False where there are not enough, or it fails."""
        try:
            # One spare block for each that runs already: else the next steps would preempt what is admitted now.
            if not self._blocks.allocate(request, spare=len(self._running)):
                return False
        except Exception as error:
            self._fail(request, error)
            return False
        self._waiting.remove(request.id)
        self._running[request.id] = request
        self._flows[request.flow] += 1
        if request.cached is None:
            request.cached = min(request.computed, request.prompt_length)
        return True

    def _make_way(self, request: Request, step: dict[str, Slice], budget: StepBudget) -> bool:
        """Preempt requests of flows that have several, so that `request` has room; none if that does not suffice."""
        victims: list[Request] = []
        slots, missing = self._max_running - len(self._running), self._blocks.missing(request) + len(self._running)
        surplus = self._surplus()
        while slots < 1 or missing > 0:
            victim = next(surplus, None)
            if victim is None:
                return False
            victims.append(victim)
            slots, missing = slots + 1, missing - 1 - self._blocks.num_own(victim)
        for victim in victims:
            self._preempt(victim, step, budget)
        return True

    def _surplus(self) -> Iterator[Request]:
        """The requests that flows have beyond one each: always the last of the flow that has most."""
        left, idle = self._flows.copy(), self._idle()
        while idle := [each for each in idle if left[each.flow] > 1]:
            victim = max(idle, key=lambda each: (left[each.flow], _rank(each)))
            idle.remove(victim)
            left[victim.flow] -= 1
            yield victim

    def _make_room(self, request: Request, step: dict[str, Slice], budget: StepBudget) -> None:
        """Preempt until `request` has a block for its newest token, itself if no other goes before it."""
        while request.id in self._running and not self._blocks.grow(request):
            self._preempt(max(self._idle(), key=lambda each: (self._flows[each.flow] > 1, _rank(each))), step, budget)

    def _idle(self) -> list[Request]:
        """Those that run and are in no step that has begun."""
        return [request for id, request in self._running.items() if id not in self._computing]

    def _stop(self, id: str) -> Request:
        """Take its blocks from a running request."""
        request = self._running.pop(id)
        self._blocks.free(request)
        self._flows[request.flow] -= 1
        if not self._flows[request.flow]:
            del self._flows[request.flow]
        return request

    def _preempt(self, request: Request, step: dict[str, Slice], budget: StepBudget) -> None:
        if request.id in step:
            budget.give_back(request, step.pop(request.id).count)
        self._waiting.push_again(self._stop(request.id))
        self.preemptions += 1

    def _set_aside(self, id: str) -> None:
        self._pausing.discard(id)
        request = self._stop(id) if id in self._running else self._take_waiting(id)
        self._leave_prompt(id)
        if request is not None:
            self._paused[id] = request
