"""The keys by which ranks meet, in rank 0's memory. Ranks on other nodes reach them over their lifelines."""

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from .messages import Add, Answer, Append, Check, CompareSet, Count, Delete, Get, Request, Set

_MAX_KEYS, _MAX_BYTES = 1 << 16, 64 << 20

Reply = Callable[[Answer], None]
Ask = Callable[[Request, Reply], None]  # sends a request to the table and calls back with the answer


@dataclass(frozen=True)
class _Waiting:
    """A Get whose keys are not all there yet."""

    get: Get
    reply: Reply
    deadline: float


class KeyTable:
    """Answers requests, at once or when their keys have come. Any thread may ask."""

    def __init__(self) -> None:
        self._values: dict[str, bytes] = {}
        self._bytes = 0
        self._waiting: list[_Waiting] = []
        self._lock = threading.Lock()

    def ask(self, request: Request, reply: Reply) -> None:
        """Call `reply` with the answer, in this thread or in the one that sets the last missing key.

        A Get that has waited for its timeout is forgotten: whoever asked has given up.
        """
        with self._lock:
            now = time.monotonic()
            if isinstance(request, Get) and not self._has(request.keys):
                self._waiting.append(_Waiting(request, reply, now + request.timeout_s))
                return
            answers = [(reply, self._answer(request))]
            if isinstance(request, Set | Add | Append | CompareSet):
                answers += self._ready(now)
        for told, answer in answers:
            told(answer)

    def _has(self, keys: Iterable[str]) -> bool:
        return all(key in self._values for key in keys)

    def _ready(self, now: float) -> list[tuple[Reply, Answer]]:
        living = [each for each in self._waiting if now < each.deadline]
        ready = [each for each in living if self._has(each.get.keys)]
        self._waiting = [each for each in living if each not in ready]
        return [(each.reply, self._answer(each.get)) for each in ready]

    def _answer(self, request: Request) -> Answer:
        match request:
            case Set(id, items):
                return Answer(id, error=self._store(items))
            case Get(id, keys, _, with_values):
                return Answer(id, [self._values[key] for key in keys] if with_values else [])
            case Check(id, keys):
                return Answer(id, number=int(self._has(keys)))
            case Add(id, key, number):
                return self._add(id, key, number)
            case Append(id, key, value):
                return Answer(id, error=self._store({key: self._values.get(key, b"") + value}))
            case CompareSet():
                return self._compare_set(request)
            case Delete(id, key):
                found = self._values.pop(key, None)
                self._bytes -= 0 if found is None else len(key) + len(found)
                return Answer(id, number=int(found is not None))
            case Count(id):
                return Answer(id, number=len(self._values))

    def _add(self, id: int, key: str, number: int) -> Answer:
        try:
            total = int(self._values.get(key, b"0")) + number
        except ValueError:
            return Answer(id, error=f"the value of {key!r} is no number")
        return Answer(id, number=total, error=self._store({key: str(total).encode()}))

    def _compare_set(self, request: CompareSet) -> Answer:
        found, error = self._values.get(request.key), ""
        if found == request.expected or (found is None and not request.expected):
            found, error = request.desired, self._store({request.key: request.desired})
        return Answer(request.id, [request.expected if found is None else found], error=error)

    def _store(self, items: Mapping[str, bytes]) -> str:
        """Store values, or return why they are refused."""
        more = sum(len(key) + len(value) for key, value in items.items())
        less = sum(len(key) + len(self._values[key]) for key in items if key in self._values)
        new = sum(key not in self._values for key in items)
        if len(self._values) + new > _MAX_KEYS or self._bytes + more - less > _MAX_BYTES:
            return f"the store is full: {len(self._values)} keys, {self._bytes} bytes"
        self._values.update(items)
        self._bytes += more - less
        return ""
