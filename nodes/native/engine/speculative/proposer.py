"""The interface of what proposes draft tokens for speculative decoding."""

from collections.abc import Sequence
from typing import Protocol

from ..request import Request


class Proposer(Protocol):
    """Guesses for sequences that have one token left to compute. It hears of each request until `forget`."""

    def propose(self, wanted: Sequence[tuple[Request, int]]) -> list[list[int]]:
        """For each request at most that many tokens which may follow its own; none where it has no idea.

        There is room in the request's blocks for the guesses.
        """

    def forget(self, id: str) -> None:
        """A request is over, or was preempted."""
