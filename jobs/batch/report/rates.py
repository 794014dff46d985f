"""Tokens/s of late."""

from collections import deque
from typing import NamedTuple

from .tally import BatchState

_WINDOW_S = 30.0


class _Seen(NamedTuple):
    at: float
    prompt: int
    completion: int


class TokenRates:
    """Tokens/s of one driver over the last half minute: a mean since the beginning would hide what happens now."""

    def __init__(self) -> None:
        self._seen: deque[_Seen] = deque([_Seen(0.0, 0, 0)])

    def see(self, state: BatchState) -> None:
        """Take one more look; they follow each other in time."""
        self._seen.append(_Seen(state.elapsed_s, state.prompt_tokens, state.completion_tokens))
        while len(self._seen) > 2 and self._seen[1].at <= state.elapsed_s - _WINDOW_S:
            self._seen.popleft()

    @property
    def prompt(self) -> float:
        """Of prompts, cached ones among them."""
        return self._rate(self._seen[-1].prompt - self._seen[0].prompt)

    @property
    def completion(self) -> float:
        """Generated."""
        return self._rate(self._seen[-1].completion - self._seen[0].completion)

    def _rate(self, tokens: int) -> float:
        seconds = self._seen[-1].at - self._seen[0].at
        return tokens / seconds if seconds > 0 else 0.0
