"""The interface of what proposes draft tokens for speculative decoding."""

from collections.abc import Sequence
from typing import Protocol

from ..request import Request


class Proposer(Protocol):
    """Proposes draft tokens for sequences that have one token left to compute.

    State of a request may be kept until `forget`.
    """

    def propose(self, wanted: Sequence[tuple[Request, int]]) -> list[list[int]]:
        """Draft tokens for each request, at most as many as asked for, maybe none.

        The request's blocks have room for them.
        """

    def forget(self, id: str) -> None:
        """Drop the state of a request that is over or was preempted."""
