"""Prompt lookup: what followed the last few tokens when they came before. It costs next to nothing."""

from collections.abc import Sequence

from ..request import Request

# Of the last tokens, longest first: a longer match is more often right.
_LENGTHS = (4, 3, 2)


class NgramProposer:
    """Proposes that what followed the last few tokens before, in the prompt or the generated text, follows again."""

    def __init__(self) -> None:
        self._indices: dict[str, _Index] = {}

    def propose(self, wanted: Sequence[tuple[Request, int]]) -> list[list[int]]:
        """Propose up to so many draft tokens for each request; none where its last two tokens have not come before."""
        return [self._index(request).continuation(request.tokens, count) for request, count in wanted]

    def forget(self, id: str) -> None:
        """Drop what is known of a request that is over or was preempted."""
        self._indices.pop(id, None)

    def _index(self, request: Request) -> "_Index":
        return self._indices.setdefault(request.id, _Index())


class _Index:
    """Where each run of tokens of one sequence came last, but for the run at its end."""

    def __init__(self) -> None:
        self._after: dict[tuple[int, ...], int] = {}  # a run of tokens -> the place behind it
        self._end = 0  # runs that end before this place are known

    def continuation(self, tokens: Sequence[int], count: int) -> list[int]:
        for end in range(self._end, len(tokens)):
            for length in _LENGTHS:
                if end >= length:
                    self._after[tuple(tokens[end - length : end])] = end
        self._end = max(self._end, len(tokens))
        for length in _LENGTHS:
            place = self._after.get(tuple(tokens[-length:])) if len(tokens) > length else None
            if place is not None:
                period = len(tokens) - place  # where it is short, what comes now goes round
                return [tokens[place + i % period] for i in range(count)]
        return []
