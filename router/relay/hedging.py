"""A second worker for a request that a first one has not begun to answer in time. The first token wins."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from ..control.counters import Counters
from .attempt import Attempt
from .call import Call

Sending = tuple[Attempt, Coroutine[Any, Any, None]]  # an attempt, and what sends its request


class Hedging:
    """Runs attempts, two at once where the first one is slow.

    Args:
        after_s: how long the first worker has.
        report: told of the attempt that has failed although the other one goes on.
    """

    def __init__(self, after_s: float, counters: Counters, report: Callable[[Call, Attempt], None]) -> None:
        self._after_s, self._counters, self._report = after_s, counters, report

    async def run(self, call: Call, first: Sending, another: Callable[[Call], Sending | None]) -> Attempt:
        """The attempt that counts. `another` starts one at a second worker, if there may be one."""
        attempt, sending = first
        running = [asyncio.create_task(sending)]
        try:
            await asyncio.wait(running, timeout=self._after_s)
            second = None if attempt.began or attempt.is_over else another(call)
            if second is None:
                await running[0]
                return attempt
            call.outlet.rivals = [attempt, second[0]]
            self._counters.count(self._counters.hedges, "sent")
            running.append(asyncio.create_task(second[1]))
            return await self._race(call, attempt, second[0], running)
        finally:
            for task in running:
                task.cancel()

    async def _race(self, call: Call, first: Attempt, second: Attempt, running: list["asyncio.Task[None]"]) -> Attempt:
        await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
        early, late = (first, second) if first.is_over else (second, first)
        if early.fault is None:
            late.stop("rival", "another worker was faster")
        else:
            if early.fault.kind != "rival":
                self._report(call, early)
            await asyncio.wait(running)
        winner = late if early.fault is not None else early
        if winner is second:
            self._counters.count(self._counters.hedges, "won")
        return winner
