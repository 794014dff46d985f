"""What was read and does not change, as much of it as memory should hold."""

import threading
from collections import OrderedDict
from typing import Generic, TypeVar

_Value = TypeVar("_Value")
_MOST = 20_000


class Cache(Generic[_Value]):
    """The latest values by id; from any thread."""

    def __init__(self, most: int = _MOST) -> None:
        self._most = most
        self._values: OrderedDict[str, _Value] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, id: str) -> _Value | None:
        """The value that was put, if it is still there."""
        with self._lock:
            found = self._values.get(id)
            if found is not None:
                self._values.move_to_end(id)
            return found

    def put(self, id: str, value: _Value) -> None:
        """Keep a value, in place of the one used longest ago if there are too many."""
        with self._lock:
            self._values[id] = value
            self._values.move_to_end(id)
            if len(self._values) > self._most:
                self._values.popitem(last=False)

    def forget(self, id: str) -> None:
        """Keep it no longer."""
        with self._lock:
            self._values.pop(id, None)
