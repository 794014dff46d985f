"""Draft tokens of a smaller model with the same tokenizer.

Its keys and values lie in the same blocks as the model's, in a cache of its own: block tables are shared. What the
prefix cache finds, the draft computes again, for every request that begins with it: the same into the same place.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from ...model.step import Chunk, Model
from ..failures import StepError
from ..request import Request
from .budget import Budget

_STEP_TOKENS = 1024
_SHORT = 16  # tokens to catch up with, in a round whose time tells what a guess takes
_KEEP = 0.9


@dataclass(slots=True)
class _Known:
    """What the draft has of one request in its cache."""

    blocks: list[int]  # where: a request that was preempted gets other ones, and nothing is there
    computed: int = 0
    guessed: list[int] = field(default_factory=list)  # the last guesses; all but the last are computed, behind the rest


class DraftProposer:
    """Proposes the tokens that a draft model finds most likely (greedy)."""

    def __init__(self, model: Model, budget: Budget, vocab_size: int) -> None:
        """`vocab_size` is that of the model that checks: it may be padded differently."""
        self._model, self._budget, self._vocab_size = model, budget, vocab_size
        self._known: dict[str, _Known] = {}

    def propose(self, wanted: Sequence[tuple[Request, int]]) -> list[list[int]]:
        """Propose up to so many draft tokens for each request, and none beyond the draft model's own context length."""
        room = self._model.context_length
        going = [(r, min(count, room - len(r.tokens))) for r, count in wanted if min(count, room - len(r.tokens)) > 0]
        began, behind = time.perf_counter(), self._catch_up([request for request, _ in going])
        for place in range(1, max((count for _, count in going), default=0)):
            self._guess([request for request, count in going if count > place])
        if going and behind <= _SHORT * len(going):
            a_guess = (time.perf_counter() - began) / sum(count for _, count in going)
            self._budget.guess_seconds += (1 - _KEEP) * (a_guess - self._budget.guess_seconds)
        guessed = {request.id: self._known[request.id].guessed for request, _ in going}
        return [guessed.get(request.id, []) for request, _ in wanted]

    def forget(self, id: str) -> None:
        """Drop what is known of a request that is over or was preempted."""
        self._known.pop(id, None)

    def _catch_up(self, requests: Sequence[Request]) -> int:
        """Compute what the draft has not of each request, and its first guess; how many tokens that was."""
        total = 0
        waiting = [(request, self._refresh(request)) for request in requests]
        while waiting:
            budget, step = _STEP_TOKENS, list[tuple[Request, _Known, int]]()
            for request, known in waiting:
                count = min(budget, len(request.tokens) - known.computed)
                if count:
                    step.append((request, known, count))
                budget -= count
            self._compute([
                (known, request.tokens[known.computed : known.computed + count], known.computed,
                 known.computed + count == len(request.tokens))
                for request, known, count in step
            ])  # fmt: skip
            for _, known, count in step:
                known.computed += count
                total += count
            waiting = [(request, known) for request, known in waiting if known.computed < len(request.tokens)]
        return total

    def _refresh(self, request: Request) -> _Known:
        known = self._known.get(request.id)
        if known is None or known.blocks is not request.blocks:
            known = self._known[request.id] = _Known(request.blocks)
        new = request.tokens[known.computed : -1]  # the last one is computed again, for what follows
        right = next((i for i, (a, b) in enumerate(zip(new, known.guessed, strict=False)) if a != b), None)
        known.computed += min(len(new), max(len(known.guessed) - 1, 0)) if right is None else right
        known.guessed = []
        return known

    def _guess(self, requests: Sequence[Request]) -> None:
        """One guess more for each."""
        known = [self._known[request.id] for request in requests]
        places = [len(request.tokens) + len(k.guessed) - 1 for request, k in zip(requests, known, strict=True)]
        self._compute([(k, k.guessed[-1:], place, True) for k, place in zip(known, places, strict=True)])

    def _compute(self, pieces: Sequence[tuple[_Known, list[int], int, bool]]) -> None:
        """Tokens of each from a place on, and what is likely to follow those that want it."""
        most = self._model.vocab_size - 1
        chunks = [
            Chunk([min(token, most) for token in tokens], start, known.blocks, int(follows), len(tokens) > _SHORT)
            for known, tokens, start, follows in pieces
        ]
        try:
            best = iter(self._model.forward(chunks)[:, : self._vocab_size].max(-1).indices.tolist())
        except Exception as error:
            raise StepError(f"the draft model cannot compute a step: {error!r}") from error
        for known, _, _, follows in pieces:
            if follows:
                known.guessed.append(next(best))
