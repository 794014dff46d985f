"""The batch driver: every row of the input through an endpoint, every row settled in the ledger exactly once."""

import asyncio
import itertools
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path

import uvloop

from ....core.net.sockets import allow_many_sockets
from ..inputs.building import Builder
from ..inputs.files import find
from ..inputs.keys import keys_of
from ..inputs.plan import Shard
from ..inputs.planning import make_plan
from ..inputs.reader import Reader
from ..ledger.ledger import Ledger
from ..ledger.record import Record
from ..outputs.export import Export
from ..report.tally import BatchState, Tally
from .concurrency import Concurrency
from .dispatcher import Dispatcher
from .endpoint import Endpoint
from .feeder import Feeder
from .http.reply import UnreachableError
from .load import read_load
from .lookahead import LookAhead
from .open_shards import OpenShards
from .options import STOP_S, BatchOptions, BatchSummary
from .selection import Selection
from .sender import Sender
from .work import WorkMaker

_TICK_S = 1.0
_HEAR_EVERY = 10  # ticks
_LOAD_EVERY_S = 2.0
_LOAD_AGAIN_S = 10.0  # where the endpoint tells nothing: it may be away, or behind something that is
_IDLE_S = 0.05
_EXPORT_EVERY_S = 30.0


def run_batch(options: BatchOptions, progress: Callable[[BatchState], None]) -> BatchSummary:
    """Work on a batch until all its rows are settled; `progress` is called about every second and at the end.

    Killed at any point and called again, it goes on where it was; called several times at once, each works on a part.
    Raises BatchError where it cannot go on: other parameters than before, no space, a wrong key, or an endpoint that
    stays away for `patience_s`; whatever was settled by then stays. Raises UsageError for options that cannot be.
    """
    options.check()
    builder = Builder(options.parameters)
    allow_many_sockets()
    now = partial(find, options.inputs, options.format)
    with Ledger(
        options.ledger, options.parameters, lambda: make_plan(now()), files=now, keys=partial(keys_of, builder)
    ) as ledger:
        reader, exported = Reader(ledger.plan, builder.columns), Reader(ledger.plan)  # for one thread each
        try:
            export = Export(ledger, exported, options.output)
            export.check()
            return uvloop.run(_Driver(options, ledger, reader, builder, export).run(progress))
        finally:
            reader.close()
            exported.close()


class _Driver:
    """One run of a driver."""

    def __init__(self, options: BatchOptions, ledger: Ledger, reader: Reader, builder: Builder, export: Export) -> None:
        self._options, self._ledger, self._reader, self._builder = options, ledger, reader, builder
        self._export = export
        self._selection = Selection(ledger.plan, options.limit, options.sample)

    async def run(self, progress: Callable[[BatchState], None]) -> BatchSummary:
        """Work until nothing is left, and write the output."""
        self._tally = Tally(self._selection.rows, await asyncio.to_thread(self._count_earlier))
        self._set_up()
        output = None
        try:
            await self._work(progress)
            output = await self._write()
        finally:
            await self._tear_down()
            progress(self._state())
        return self._summary(output)

    def _set_up(self) -> None:
        options, loop = self._options, asyncio.get_running_loop()
        self._loop = loop
        self._endpoint = Endpoint(options.endpoint, options.key, options.locate, options.on_behalf_of)
        self._concurrency = Concurrency(time.monotonic, options.concurrency)
        self._sender = Sender(
            self._endpoint,
            self._concurrency,
            lambda: self._dispatcher.in_flight,
            self._tally.retry,
            samples=options.parameters.samples,
            patience_s=options.patience_s,
            waits_for_holes=options.waits_for_holes,
        )
        self._ahead = LookAhead(
            lambda: loop.call_soon_threadsafe(self._dispatcher.fill), lambda: self._concurrency.size
        )
        claims = threading.Lock()
        self._shards = OpenShards(
            self._ledger, self._selection, claims, lambda error: self._dispatcher.thread_done(error)
        )
        self._dispatcher = Dispatcher(
            self._ahead,
            self._shards,
            self._sender,
            self._concurrency,
            share=options.share or (lambda: 1.0),
            on_settled=self._count,
            now=lambda: self._tally.now,
        )
        self._feeder = Feeder(
            self._ledger,
            self._reader,
            self._builder,
            self._selection,
            self._ahead,
            claims=claims,
            make_work=WorkMaker(options.parameters).make,
            on_open=self._open,
            waits=options.waits_for_others,
        )

    async def _work(self, progress: Callable[[BatchState], None]) -> None:
        loop = self._loop
        thread = ThreadPoolExecutor(1, "batch-feed")
        self._feeding = loop.run_in_executor(thread, self._feeder.run)
        thread.shutdown(wait=False)  # when it is done
        self._feeding.add_done_callback(self._fed)
        aside = [self._tick(progress), self._endpoint.follow(), self._watch_load(), self._export_ready()]
        tasks = [loop.create_task(work) for work in aside]
        for task in tasks:
            task.add_done_callback(self._aside_done)
        try:
            await self._dispatcher.run()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _write(self) -> Path | None:
        """The output, as far as it is this driver's to write."""
        path = self._options.output.path
        if not self._selection.is_all:
            await asyncio.to_thread(self._export.snapshot, path)
            return path
        if await asyncio.to_thread(self._is_all_sealed):
            return await asyncio.to_thread(self._export.finish)
        return None

    async def _tear_down(self) -> None:
        self._feeder.stop()
        await asyncio.gather(self._feeding, return_exceptions=True)
        await self._shards.close()
        await self._sender.close()
        self._endpoint.close()
        await asyncio.to_thread(self._ledger.sync)

    def _count_earlier(self) -> int:
        """Rows that earlier runs have answered. Of a part of the rows only those in sealed shards are counted here."""
        if self._selection.is_all:
            return self._ledger.counts().answered
        sealed = (shard for shard in self._ledger.plan.shards if self._ledger.is_sealed(shard.number))
        return sum(map(self._selection.count, sealed))

    def _open(self, shard: Shard, rows: int) -> None:
        """A shard was claimed, of which so many rows are to be sent. Called from the feeder's thread."""
        self._shards.open(shard, rows)
        if not self._selection.is_all and (earlier := self._selection.count(shard) - rows):
            self._loop.call_soon_threadsafe(self._skip, earlier)

    def _skip(self, rows: int) -> None:
        """Count rows that an earlier run has settled, of a part of the rows."""
        tally = self._tally
        tally.skipped += rows
        tally.hear(tally.skipped + tally.own_answered, 0, tally.drivers)

    def _count(self, record: Record, began: float | None) -> None:
        """Count a row that was settled."""
        tally = self._tally
        if record.blank:
            tally.blank()
        elif record.error is not None:
            tally.fail(record.error)
        else:
            tally.answer(record.prompt_tokens, record.cached_tokens, record.completion_tokens, began)

    def _fed(self, feeding: "asyncio.Future[None]") -> None:
        if feeding.cancelled():
            return
        error = feeding.exception()
        if error is not None:
            self._dispatcher.fail(error)
        else:
            self._dispatcher.end_of_rows()

    def _aside_done(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._dispatcher.fail(error)

    async def _tick(self, progress: Callable[[BatchState], None]) -> None:
        looks = itertools.count(1)
        while True:
            progress(self._state())
            if self._options.stops is not None and self._options.stops():
                self._dispatcher.stop(STOP_S)
            await asyncio.sleep(_TICK_S)
            await asyncio.to_thread(self._ledger.sync)
            if next(looks) % _HEAR_EVERY == 0:
                await asyncio.to_thread(self._hear)

    def _hear(self) -> None:
        """What other drivers have done meanwhile. In a thread: it asks the filesystem."""
        others = self._ledger.others
        if (others or self._tally.drivers > 1) and self._selection.is_all:
            counts = self._ledger.counts()
            self._loop.call_soon_threadsafe(self._tally.hear, counts.answered, counts.failed, others + 1)

    async def _watch_load(self) -> None:
        """Fit the number of requests to what the endpoint tells of its load."""
        while self._options.concurrency is None:
            if not self._dispatcher.in_flight:  # a batch without rows to send would end in the middle of a handshake
                await asyncio.sleep(_IDLE_S)
                continue
            load = None
            with suppress(UnreachableError):
                load = await read_load(self._endpoint)
            if load is not None:
                self._concurrency.see(load, self._dispatcher.in_flight)
                self._tally.workers = load.workers
                self._dispatcher.fill()
            await asyncio.sleep(_LOAD_EVERY_S if load is not None else _LOAD_AGAIN_S)

    async def _export_ready(self) -> None:
        sealed = self._shards.sealed
        while True:
            await asyncio.sleep(_EXPORT_EVERY_S)
            if sealed != self._shards.sealed:
                sealed = self._shards.sealed
                self._shards.run(self._export.write_ready)

    def _is_all_sealed(self) -> bool:
        return all(self._ledger.is_sealed(shard.number) for shard in self._ledger.plan.shards)

    def _state(self) -> BatchState:
        tally = self._tally
        tally.in_flight, tally.wanted_in_flight = self._dispatcher.in_flight, self._concurrency.size
        return tally.state()

    def _summary(self, output: Path | None) -> BatchSummary:
        state = self._state()
        return BatchSummary(
            total=state.total,
            answered=state.answered,
            skipped=state.skipped,
            failed=state.failed,
            prompt_tokens=state.prompt_tokens,
            cached_tokens=state.cached_tokens,
            completion_tokens=state.completion_tokens,
            elapsed_s=state.elapsed_s,
            output=output,
            others=self._ledger.others,
        )
