"""Connections that may wait for so many seconds, without a timer for each."""

from typing import Generic, TypeVar

Waiter = TypeVar("Waiter")


class Waiting(Generic[Waiter]):
    """Who waits, and since which tick. A tick is a second in which the event loop runs: a stall does not count."""

    __slots__ = ("_patience", "_since", "_ticks")

    def __init__(self, patience: int) -> None:
        self._patience = patience  # ticks
        self._since: dict[Waiter, int] = {}
        self._ticks = 0

    def __contains__(self, waiter: Waiter) -> bool:
        return waiter in self._since

    def put(self, waiter: Waiter) -> None:
        """Wait from now on; again, if it has waited before."""
        self._since[waiter] = self._ticks

    def drop(self, waiter: Waiter) -> None:
        """Wait no more."""
        self._since.pop(waiter, None)

    def all(self) -> list[Waiter]:
        """Who waits now."""
        return list(self._since)

    def tick(self) -> list[Waiter]:
        """Let a second pass: who has waited for too long and waits no more."""
        self._ticks += 1
        latest = self._ticks - self._patience
        over = [waiter for waiter, since in self._since.items() if since <= latest]
        for waiter in over:
            del self._since[waiter]
        return over
