"""Whether a worker that has just failed still lives."""

import asyncio
import contextlib

from ...http.heads import request_head
from ...http.messages import ConnectError, Headers
from .upstream import Upstream

# Between a failure and the question: a dying process takes a moment to end.
DYING_PAUSE_S = 0.1
# An engine whose event loop is held up by a long prefill answers late, not never.
TIMEOUT_S = 5.0


class Health:
    """Asks workers for their health, each by one question at a time, however many want to know."""

    def __init__(self) -> None:
        self._asking: dict[Upstream, asyncio.Task[bool]] = {}

    async def outlives(self, upstream: Upstream) -> bool:
        """Whether a worker is there a moment after it has failed, and says that it is healthy."""
        return await asyncio.shield(self.ask(upstream))

    def ask(self, upstream: Upstream) -> "asyncio.Task[bool]":
        """The same as a task."""
        task = self._asking.get(upstream)
        if task is None:
            task = self._asking[upstream] = asyncio.create_task(self._ask(upstream))
            task.add_done_callback(lambda _: self._asking.pop(upstream, None))
        return task

    def close(self) -> None:
        """Ask no more."""
        for task in self._asking.values():
            task.cancel()

    async def _ask(self, upstream: Upstream) -> bool:
        await asyncio.sleep(DYING_PAUSE_S)
        answer = _Answer()
        head = request_head(b"GET", b"/health", [], key=upstream.view.key)
        with contextlib.suppress(ConnectError, TimeoutError):
            async with asyncio.timeout(TIMEOUT_S):
                flow = await upstream.connections.send(head, b"", answer)
                try:
                    await answer.done
                finally:
                    flow.abort()  # nothing, if the answer is complete
        return answer.status == 200 and not upstream.is_retired


class _Answer:
    """The sink of an answer of which only the status matters."""

    def __init__(self) -> None:
        self.status = 0
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def on_head(self, status: int, headers: Headers) -> None:
        """Keep the status."""
        self.status = status

    def on_data(self, data: bytes) -> None:
        """Nobody wants it."""

    def on_end(self) -> None:
        """The answer is complete."""
        if not self.done.done():
            self.done.set_result(None)

    def on_lost(self, error: Exception) -> None:
        """There is no answer."""
        self.status = 0
        self.on_end()
