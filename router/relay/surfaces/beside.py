"""Work on large requests beside the event loop: one after the other in a thread, the tenants by turns.

Several threads at once would only take the interpreter from each other, and from the event loop.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

from ....core.background.threads import Result, in_thread

# Bytes of a request from which on other requests do not wait for its translation: one of many small blocks takes a
# second for 3 MB.
LARGE = 256 * 1024


class Beside:
    """The large requests of one relay."""

    def __init__(self) -> None:
        self._waiting: dict[str, deque[tuple[asyncio.Future[Any], Callable[[], Any]]]] = {}  # by tenant
        self._is_busy = False

    async def run(self, tenant: str, work: Callable[[], Result]) -> Result:
        """The result of `work` for a request of a tenant, when it is its turn. What `work` raises passes."""
        done: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(tenant, deque()).append((done, work))
        self._go_on()
        return await done

    def _go_on(self) -> None:
        while self._waiting and not self._is_busy:
            tenant = next(iter(self._waiting))
            waiting = self._waiting.pop(tenant)
            done, work = waiting.popleft()
            if waiting:
                self._waiting[tenant] = waiting  # behind the other tenants
            if not done.done():  # its client has not hung up
                self._is_busy = True
                in_thread(work).add_done_callback(partial(self._over, done))

    def _over(self, done: "asyncio.Future[Any]", worked: "asyncio.Future[Any]") -> None:
        self._is_busy = False
        error = None if worked.cancelled() else worked.exception()
        if done.done() or worked.cancelled():
            done.cancel()
        elif error is not None:
            done.set_exception(error)
        else:
            done.set_result(worked.result())
        self._go_on()
