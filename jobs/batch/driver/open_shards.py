"""The shards that a driver has claimed: how many of their rows are not settled, and what happens when none is left."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from ..inputs.plan import Shard
from ..ledger.ledger import Ledger
from ..ledger.record import Record
from .selection import Selection


class OpenShards:
    """Seals shards when all their rows are settled, or gives them back when all are that were asked for.

    In a thread of its own, one after the other. For the event loop's thread, but for `open`.

    Args:
        claims: held while the ledger's claims change.
        on_done: called after each, with what it has raised.
    """

    def __init__(
        self,
        ledger: Ledger,
        selection: Selection,
        claims: threading.Lock,
        on_done: Callable[[BaseException | None], None],
    ) -> None:
        self._claims = claims
        self._ledger, self._selection, self._on_done = ledger, selection, on_done
        self._left: dict[int, int] = {}
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="batch-seal")
        self._loop = asyncio.get_running_loop()
        self._pending: set[asyncio.Future[None]] = set()
        self.sealed = 0  # by this driver

    def open(self, shard: Shard, rows: int) -> None:
        """Note a claimed shard, and how many of its rows will be settled. From any thread."""
        self._left[shard.number] = rows
        if not rows:
            self._loop.call_soon_threadsafe(self._complete, shard)

    def settle(self, shard: Shard, record: Record) -> None:
        """Keep the record of a row. Raises BatchError."""
        self._ledger.append(shard, record)
        self._left[shard.number] -= 1
        if not self._left[shard.number]:
            self._complete(shard)

    @property
    def is_idle(self) -> bool:
        """Whether no shard is open or being sealed."""
        return not self._left and not self._pending

    def run(self, work: Callable[[], None]) -> None:
        """Do something else in the thread, after what is waiting."""
        future = self._loop.run_in_executor(self._thread, work)
        self._pending.add(future)
        future.add_done_callback(self._done)

    async def close(self) -> None:
        """Wait for what has been begun; what waits for its turn is left to the next driver."""
        await asyncio.to_thread(self._thread.shutdown, cancel_futures=True)

    def _complete(self, shard: Shard) -> None:
        del self._left[shard.number]
        if self._selection.count(shard) == shard.rows:
            self.run(lambda: self._end(self._ledger.seal, shard))
            self.sealed += 1
        else:
            self.run(lambda: self._end(self._ledger.release, shard))

    def _end(self, how: Callable[[Shard], None], shard: Shard) -> None:
        with self._claims:
            how(shard)

    def _done(self, future: "asyncio.Future[None]") -> None:
        self._pending.discard(future)
        if not future.cancelled():
            self._on_done(future.exception())
