"""Work that takes long, beside an event loop: so much of it at once, and whoever asks for it by turns.

More threads at once would only take the interpreter from each other, and from the event loop.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

from .threads import Result, in_thread


class FairThreads:
    """Threads that work for several, such as tenants.

    Args:
        most: at once.
    """

    def __init__(self, most: int = 1) -> None:
        self._most, self._at_work = most, 0
        self._waiting: dict[str, deque[tuple[asyncio.Future[Any], Callable[[], Any]]]] = {}  # by whose it is

    async def run(self, whose: str, work: Callable[[], Result]) -> Result:
        """The result of `work`, when it is its turn. What it raises passes."""
        done: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(whose, deque()).append((done, work))
        self._go_on()
        return await done

    def _go_on(self) -> None:
        while self._waiting and self._at_work < self._most:
            whose = next(iter(self._waiting))
            waiting = self._waiting.pop(whose)
            done, work = waiting.popleft()
            if waiting:
                self._waiting[whose] = waiting  # behind all others
            if not done.done():  # it is still wanted
                self._at_work += 1
                in_thread(work).add_done_callback(partial(self._over, done))

    def _over(self, done: "asyncio.Future[Any]", worked: "asyncio.Future[Any]") -> None:
        self._at_work -= 1
        error = None if worked.cancelled() else worked.exception()
        if done.done() or worked.cancelled():
            done.cancel()
        elif error is not None:
            done.set_exception(error)
        else:
            done.set_result(worked.result())
        self._go_on()
