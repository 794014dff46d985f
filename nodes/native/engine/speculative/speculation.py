"""Draft tokens for the requests of a step, as many as pay and as there is room for."""

from collections import Counter
from collections.abc import Mapping, Sequence

from ...model.step import Model
from ...options import EngineOptions
from ..request import Limits, Output, Request
from ..scheduler import Scheduler, Slice
from .budget import Budget
from .draft import DraftProposer
from .ngram import NgramProposer
from .proposer import Proposer


class Speculation:
    """Draft tokens of one engine: asks the proposer for them, by the budget, and counts how many were accepted."""

    def __init__(
        self, options: EngineOptions, scheduler: Scheduler, limits: Limits, draft: Model | None = None
    ) -> None:
        """`draft` computes the guesses of the method of that name."""
        self._scheduler, self._limits, self._max_tokens = scheduler, limits, options.max_batch_tokens
        self._budget = Budget(options.draft_tokens)
        self._proposer: Proposer = NgramProposer()
        if draft is not None:
            self._proposer = DraftProposer(draft, self._budget, limits.vocab_size)
        self.guessed = self.accepted = 0

    def guess(self, slices: Sequence[Slice]) -> dict[str, list[int]]:
        """Draft tokens, at least one, by the id of each request that decodes in this step and gets any."""
        requests = [slice.request for slice in slices if self._decodes(slice)]
        left = self._max_tokens - sum(slice.count for slice in slices)
        wanted = []
        for request, count in zip(requests, self._budget.share([r.id for r in requests], left), strict=True):
            # The last token that a request may have is never guessed: nothing would come behind it.
            room = self._limits.sequence_tokens - len(request.tokens)
            most = min(request.params.max_tokens - request.generated, room) - 1
            count = min(count, max(most, 0))
            wanted.append((request, self._scheduler.reserve(request, count) if count else 0))
        wanted = [(request, count) for request, count in wanted if count]
        found = self._proposer.propose(wanted)
        allowed = [_by_grammar(*pair, guesses) for pair, guesses in zip(wanted, found, strict=True)]
        return {request.id: guesses for (request, _), guesses in zip(wanted, allowed, strict=True) if guesses}

    def learn(
        self, slices: Sequence[Slice], guesses: Mapping[str, list[int]], outputs: Sequence[Output], seconds: float
    ) -> None:
        """Take in a finished step that took so many seconds and generated `outputs`."""
        if all(slice.count == 1 for slice in slices):
            self._budget.cost.observe(len(slices) + sum(map(len, guesses.values())), seconds)
        drawn = Counter(output.request.id for output in outputs)
        for request in (s.request for s in slices if s.request.id in guesses and not s.request.failed):
            guessed, accepted = len(guesses[request.id]), drawn[request.id] - 1
            request.guessed, request.accepted = request.guessed + guessed, request.accepted + accepted
            self.guessed, self.accepted = self.guessed + guessed, self.accepted + accepted
            self._budget.learn(request.id, guessed, accepted)
        for output in outputs:
            if output.finish:
                self.forget(output.request.id)

    def forget(self, id: str) -> None:
        """Drop the state of a request that is over."""
        self._proposer.forget(id)
        self._budget.forget(id)

    @staticmethod
    def _decodes(slice: Slice) -> bool:
        request = slice.request
        if request.params.grammar is not None and request.params.grammar.is_heavy:
            return False  # the masks behind each guess would be computed while all others wait
        return slice.count == 1 and slice.reaches_end and request.generated > 0


def _by_grammar(request: Request, count: int, guesses: list[int]) -> list[int]:
    """Guesses up to the first one that the grammar forbids; in place of none, what must come next, if that is clear."""
    if request.params.grammar is None:
        return guesses
    return guesses[: request.matcher.valid(guesses)] or request.matcher.forced()[:count]
