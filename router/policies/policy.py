"""What a policy is. It decides from what it is given and touches nothing."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from ..fleet.worker import Worker


@dataclass(frozen=True, slots=True)
class RoutedRequest:
    """What a policy knows of a request."""

    path: str  # such as /v1/chat/completions
    model: str | None  # None: the client names none, so that any will do
    body: bytes


class Policy(Protocol):
    """Chooses the worker that gets a request."""

    def choose(self, request: RoutedRequest, workers: Sequence[Worker]) -> Worker | None:
        """One of `workers`, which can all take the request and have not been tried for it; None if there are none."""
