"""A torch.distributed store over the ranks' authenticated connections.

PyTorch's own TCPStore has no authentication, and its FileStore needs locks that shared filesystems may lack. Gloo and
NCCL call it from threads of their own, through PyTorch's binding; what they wait for holds up nobody else.
"""

import itertools
import queue
from collections.abc import Sequence
from datetime import timedelta

from torch.distributed import DistStoreError, Store  # type: ignore[attr-defined]

from .key_table import Ask
from .messages import Add, Answer, Append, Check, CompareSet, Count, Delete, Get, Request, Set


class RankStore(Store):
    """The keys that all ranks share. Any thread may use it; each method raises DistStoreError where rank 0 is gone.

    The names of methods are those that PyTorch's binding calls. Keep a reference to it: PyTorch's C++ code has none.
    """

    def __init__(self, ask: Ask, timeout: timedelta) -> None:
        """`ask` reaches rank 0's table, see FailureDetector and Lifeline; `timeout` is that of `get` and `wait`."""
        super().__init__()
        self.set_timeout(timeout)
        self._ask, self._ids = ask, itertools.count()

    def clone(self) -> "RankStore":
        """Return this store: it is safe in several threads."""
        return self

    def set(self, key: str, value: str | bytes) -> None:
        """Set a key."""
        self.multi_set([key], [value])

    def get(self, key: str) -> bytes:
        """Wait for a key, and return its value."""
        return self.multi_get([key])[0]

    def add(self, key: str, value: int) -> int:
        """Add to the number that a key has, 0 where it is absent, and return the sum."""
        return self._call(Add(next(self._ids), key, value)).number

    def compare_set(self, key: str, expected_value: str | bytes, desired_value: str | bytes) -> bytes:
        """Set a key if its value is the expected one (empty: or if it is absent); return what it is then."""
        request = CompareSet(next(self._ids), key, _bytes(expected_value), _bytes(desired_value))
        return self._call(request).values[0]

    def check(self, keys: Sequence[str]) -> bool:
        """Whether all keys are there."""
        return bool(self._call(Check(next(self._ids), list(keys))).number)

    def wait(self, keys: Sequence[str], timeout: timedelta | None = None) -> None:
        """Wait for keys; by default as long as `get` does."""
        self._get(keys, timeout, with_values=False)

    def deleteKey(self, key: str) -> bool:
        """Delete a key; return whether it was there."""
        return bool(self._call(Delete(next(self._ids), key)).number)

    def getNumKeys(self) -> int:
        """Return how many keys there are."""
        return self._call(Count(next(self._ids))).number

    def has_extended_api(self) -> bool:
        """True: there are `append`, `multi_get` and `multi_set`."""
        return True

    def append(self, key: str, value: str | bytes) -> None:
        """Append to the value of a key."""
        self._call(Append(next(self._ids), key, _bytes(value)))

    def multi_get(self, keys: Sequence[str]) -> list[bytes]:
        """Wait for keys, and return their values."""
        return self._get(keys, None, with_values=True)

    def multi_set(self, keys: Sequence[str], values: Sequence[str | bytes]) -> None:
        """Set keys."""
        items = {key: _bytes(value) for key, value in zip(keys, values, strict=True)}
        self._call(Set(next(self._ids), items))

    def _get(self, keys: Sequence[str], timeout: timedelta | None, with_values: bool) -> list[bytes]:
        default: timedelta = self.timeout  # type: ignore[attr-defined]
        seconds = (default if timeout is None else timeout).total_seconds()
        return self._call(Get(next(self._ids), list(keys), seconds, with_values), seconds).values

    def _call(self, request: Request, timeout_s: float | None = None) -> Answer:
        answers: queue.SimpleQueue[Answer] = queue.SimpleQueue()
        self._ask(request, answers.put)
        try:
            answer = answers.get(timeout=timeout_s)
        except queue.Empty:
            keys = ", ".join(request.keys) if isinstance(request, Get) else ""
            raise DistStoreError(f"wait timeout after {timeout_s:g} s, keys: {keys}") from None
        if answer.error:
            raise DistStoreError(answer.error)
        return answer


def _bytes(value: str | bytes) -> bytes:
    return value.encode() if isinstance(value, str) else value
