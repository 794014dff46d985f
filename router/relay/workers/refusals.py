"""Workers that refuse what others would answer.

An answer of 4xx is the client's fault as a rule, and no worker's. A worker is in doubt when it has answered nothing but
4xx to several requests in a row while other workers of its model answered well. That proves nothing: a client may have
sent bad requests in a row. Each time that a worker was right, it takes twice as many to doubt it again.
"""

from collections import Counter

from .upstream import Upstream

# Answers that say nothing of whether the request is good: a wrong key, too long for a proxy, too many.
_OTHER_REASONS = frozenset({401, 413, 429})
_IN_A_ROW = 3


def is_refusal(status: int) -> bool:
    """Whether a status says that the request is wrong."""
    return 400 <= status < 500 and status not in _OTHER_REASONS


class Refusals:
    """Counts the refusals of all workers. One that never answered well here is in doubt after its first, once."""

    def __init__(self) -> None:
        self._answers: Counter[str] = Counter()  # good ones, by model

    def answered(self, upstream: Upstream) -> None:
        """Note a good answer."""
        answers = self._answers[upstream.model] + 1
        self._answers[upstream.model] = upstream.answers_known = answers
        upstream.refusals = 0
        if upstream.patience < _IN_A_ROW:
            upstream.patience = _IN_A_ROW

    def refused(self, upstream: Upstream) -> bool:
        """Note a refusal; whether the worker is in doubt now."""
        upstream.refusals += 1
        is_new = upstream.patience < _IN_A_ROW
        return upstream.refusals >= upstream.patience and (is_new or self.others_answer(upstream))

    def others_answer(self, upstream: Upstream) -> bool:
        """Whether other workers of its model have answered well since it has."""
        return self._answers[upstream.model] > upstream.answers_known

    def cleared(self, upstream: Upstream) -> None:
        """Note that another worker has refused the same."""
        upstream.refusals = 0
        upstream.patience = max(_IN_A_ROW, 2 * upstream.patience)
