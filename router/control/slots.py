"""Slots of the board: which number stands for which life of a worker, in all relays."""

from collections import deque
from collections.abc import Callable, Collection, Hashable

from ...core.errors import RouterError
from .board import WORKERS

# Relays that still have an old view, and prefix owners that they have still to read, are gone after that.
PAUSE_S = 60.0


class Slots:
    """Numbers are taken in turn, so that one comes back as late as possible."""

    def __init__(self, count: int = WORKERS, pause_s: float = PAUSE_S) -> None:
        self._free = deque(range(count))
        self._pause_s = pause_s
        self._of: dict[Hashable, int] = {}
        self._resting: dict[int, float] = {}  # of lives that are gone: when that was noticed

    def slot(self, life: Hashable) -> int:
        """The slot of a life, from now on until `keep` no longer names it. Raises RouterError where none is free."""
        if life not in self._of:
            if not self._free:
                raise RouterError(
                    "there are more workers than the router has room for, those of the last minute included"
                )
            self._of[life] = self._free.popleft()
        return self._of[life]

    def keep(self, lives: Collection[Hashable], is_idle: Callable[[int], bool], now: float) -> None:
        """Let other lives have the slots of those that are gone, after a pause and once their slot is idle.

        Args:
            lives: all that there are now.
            is_idle: whether no relay counts anything for a slot.
            now: seconds of any clock that only goes forward.
        """
        for life in self._of.keys() - set(lives):
            self._resting[self._of.pop(life)] = now
        for slot, since in list(self._resting.items()):
            if now - since >= self._pause_s and is_idle(slot):
                del self._resting[slot]
                self._free.append(slot)
