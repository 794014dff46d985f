"""What admission needs to be given: how much workers take, the other relays, a timer."""

import asyncio
from collections.abc import Callable, Hashable, Sequence
from typing import Protocol

# For a lane: the requests that its workers may have in flight (capacity x overcommit x ramp, whole), and those of all
# relays that they have now (from the board).
Room = Callable[[Hashable], tuple[int, int]]


class Neighbours(Protocol):
    """The queues of the other relays."""

    def publish(self, lane: Hashable, waiting: Sequence[int]) -> None:
        """Tell the others how many requests wait here, by class."""

    def waiting(self, lane: Hashable) -> Sequence[int] | None:
        """Requests that wait in the others, by class; None where nobody does."""


class Timer(Protocol):
    """What `call_later` of an event loop gives."""

    def cancel(self) -> None:
        """Do not call."""


CallLater = Callable[[float, Callable[[], None]], Timer]


def loop_timer(delay_s: float, callback: Callable[[], None]) -> Timer:
    """`CallLater` of the running event loop."""
    return asyncio.get_running_loop().call_later(delay_s, callback)
