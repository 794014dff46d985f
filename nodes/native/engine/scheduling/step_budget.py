"""What one step may still compute of prompts: tokens, rows of logits, and seconds."""

import math
from dataclasses import dataclass

from ..request import Request
from .step_time import StepTime, StepWork

_PIECE = 16  # tokens that kernels compute together, and the fewest that a step computes of a prompt
_ALONE = 2  # times as long may a step take in which nobody decodes: longer ones would be no faster


def prompt_seconds(time: StepTime, decodes: int, target_s: float) -> float:
    """Seconds that a step beside so many decodes may spend on prompts, so that it takes about `target_s`.

    Where the decodes take long by themselves, prompts get half as long: else they would not get on.
    """
    if not decodes:
        return _ALONE * target_s
    alone = time.of(StepWork(decodes=decodes))
    return max(target_s - alone, alone / 2)


def work_of(request: Request, count: int) -> StepWork:
    """The work of the next `count` tokens of a request."""
    if count == request.remaining == 1:
        return StepWork(decodes=1)
    return StepWork(
        tokens=count, pairs=count * (request.computed + count / 2), scored=request.prompt_rows(count)
    )  # fmt: skip


@dataclass(slots=True)
class StepBudget:
    """What is left of one step."""

    tokens: int
    scored: int  # rows of logits that are for log-probabilities of prompts
    time: StepTime
    seconds: float = math.inf  # for prompts
    begun: bool = False  # whether a prompt has got anything: the first one always does
    is_spent: bool = False  # nobody gets anything any more

    def take(self, request: Request, *, share: float = 1.0) -> int:
        """Give a request as many tokens as there are for it, maybe none; how many.

        `share`: the part of what is left that it may have.
        """
        wanted = min(self.tokens, request.tokens_within(self.scored))
        count = min(wanted, math.ceil(share * self.tokens))
        count = min(count, self._within(request, share * self.seconds, count))
        if not count and not self.begun:
            count = min(_PIECE, wanted)
        self.begun |= count > 0 and not work_of(request, count).decodes
        self.tokens -= count
        self.scored -= request.prompt_rows(count)
        self.seconds -= self._seconds(request, count)
        self.is_spent = self.tokens == 0 or (share == 1.0 and count < wanted)
        return count

    def give_back(self, request: Request, count: int) -> None:
        """Take back tokens that a request got."""
        self.tokens += count
        self.scored += request.prompt_rows(count)
        self.seconds += self._seconds(request, count)

    def _within(self, request: Request, seconds: float, count: int) -> int:
        """How many of the next `count` tokens of a request can be computed in so many seconds: whole pieces, or all."""
        if self._seconds(request, count) <= seconds:
            return count
        # tokens * (linear + quadratic * tokens) = seconds
        quadratic = self.time.of_pair / 2
        linear = self.time.of_token + self.time.of_pair * request.computed
        linear += self.time.of_scored if request.prompt_logprobs is not None else 0.0
        root = 2 * seconds / (linear + math.sqrt(linear * linear + 4 * quadratic * seconds)) if seconds > 0 else 0.0
        return min(int(root) // _PIECE * _PIECE, count)

    def _seconds(self, request: Request, count: int) -> float:
        """Beside a step that is computed anyway; decodes are not counted."""
        work = work_of(request, count)
        return 0.0 if work.decodes else self.time.of(work) - self.time.of(StepWork())
