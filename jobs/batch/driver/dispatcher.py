"""Keeps as many requests in flight as are wanted, from the look-ahead to the ledger."""

import asyncio
import math
from collections.abc import Callable

from ..inputs.plan import Shard
from ..ledger.record import Record
from .concurrency import Concurrency
from .lookahead import LookAhead
from .open_shards import OpenShards
from .sender import Sender
from .work import Work

_MOST_BYTES = 512 * 1024 * 1024  # of rows in flight, unless one alone has more


class Dispatcher:
    """Sends rows of the look-ahead, each in a task of its own.

    Args:
        share: of the wanted number of requests, the part that is in flight at most.
        on_settled: called with each record that was kept, and when its row was sent first, by `now`; None: never.
    """

    def __init__(
        self,
        ahead: LookAhead,
        shards: OpenShards,
        sender: Sender,
        concurrency: Concurrency,
        *,
        share: Callable[[], float],
        on_settled: Callable[[Record, float | None], None],
        now: Callable[[], float],
    ) -> None:
        self._ahead, self._shards, self._sender, self._concurrency = ahead, shards, sender, concurrency
        self._share, self._on_settled, self._now = share, on_settled, now
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._bytes = 0
        self._over: asyncio.Future[None] = self._loop.create_future()
        self._all_read = self._stopping = False

    @property
    def in_flight(self) -> int:
        """How many rows are being sent."""
        return len(self._tasks)

    async def run(self) -> None:
        """Return when all rows that were read are settled and their shards sealed. Raises what `fail` was given."""
        try:
            await self._over
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def end_of_rows(self) -> None:
        """No more rows will be read."""
        self._all_read = True
        self.fill()

    def stop(self, seconds: float) -> None:
        """Send no more rows, and return from `run` when those in flight are settled, or after that many seconds."""
        if not self._stopping:
            self._stopping = True
            self._loop.call_later(seconds, self._end)
            self.fill()

    def _end(self) -> None:
        if not self._over.done():
            self._over.set_result(None)

    def fail(self, error: BaseException) -> None:
        """The batch cannot go on."""
        if not self._over.done():
            self._over.set_exception(error)

    def thread_done(self, error: BaseException | None) -> None:
        """Something that was done in a thread is over."""
        if error is not None:
            self.fail(error)
        else:
            self.fill()

    def fill(self) -> None:
        """Send as many rows as are wanted and there."""
        if self._over.done():
            return
        try:
            self._keep_settled()
        except Exception as error:
            self.fail(error)
            return
        wanted = 0 if self._stopping else math.ceil(self._concurrency.size * self._share())
        while len(self._tasks) < wanted and (self._bytes < _MOST_BYTES or not self._tasks):
            work = self._ahead.take()
            if work is None:
                break
            self._start(work)
        if not self._tasks and (self._stopping or (self._all_read and self._shards.is_idle)):
            self._end()

    def _keep_settled(self) -> None:
        while (found := self._ahead.take_settled()) is not None:
            self._keep(*found, None)

    def _start(self, work: Work) -> None:
        self._bytes += work.size
        task = self._loop.create_task(self._settle(work))
        self._tasks.add(task)
        task.add_done_callback(self._done)

    async def _settle(self, work: Work) -> None:
        try:
            began = self._now()
            self._keep(work.shard, await self._sender.settle(work), began)
        finally:
            self._bytes -= work.size

    def _keep(self, shard: Shard, record: Record, began: float | None) -> None:
        self._shards.settle(shard, record)
        self._on_settled(record, began)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if task.cancelled():
            return
        error = task.exception()
        if error is not None:
            self.fail(error)
        else:
            self.fill()
