"""Requests that wait until another one has computed the prompt that they share with it."""

from ..request import Request

_Key = tuple[str, int]


class SharedPrompts:
    """The choices of one prompt: the first computes it, the others find it in the prefix cache afterwards.

    They came together, and with the same list as their prompt.
    """

    def __init__(self, block_size: int) -> None:
        """`block_size`: tokens of a block, the least that can be shared."""
        self._block_size = block_size
        self._first: dict[_Key, str] = {}  # ids of requests that compute a prompt, or wait to do so
        self._others: dict[_Key, dict[str, Request]] = {}
        self._keys: dict[str, _Key] = {}  # of all of them, by their ids

    def __len__(self) -> int:
        """How many requests wait for others."""
        return len(self._keys) - len(self._first)

    def waits(self, request: Request) -> bool:
        """Take a request; whether it is to wait for another one. Else it computes the prompt itself."""
        has_nothing_to_share = request.logits_from < self._block_size or request.pooling is not None
        if has_nothing_to_share or request.id in self._keys:
            return False
        key = request.flow, id(request.given)
        self._keys[request.id] = key
        if self._first.setdefault(key, request.id) == request.id:
            return False
        self._others.setdefault(key, {})[request.id] = request
        return True

    def take(self, id: str) -> Request | None:
        """Take out a request that waits for another one; None if there is none of that id."""
        key = self._keys.get(id)
        if key is None or self._first[key] == id:
            return None
        del self._keys[id]
        return self._others[key].pop(id)

    def leave(self, id: str) -> list[Request]:
        """Forget a request that others wait for; these, in order, which do so no longer."""
        key = self._keys.get(id)
        if key is None or self._first[key] != id:
            return []
        del self._keys[id], self._first[key]
        others = self._others.pop(key, {})
        for other in others:
            del self._keys[other]
        return list(others.values())
