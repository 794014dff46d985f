"""The batch driver: every row of the input through an endpoint, every row settled in the ledger exactly once."""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import uvloop

from ....core.net.sockets import allow_many_sockets
from ..inputs.building import Builder
from ..inputs.files import find
from ..inputs.plan import Plan
from ..inputs.planning import make_plan
from ..inputs.reader import Reader
from ..ledger.ledger import Ledger
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
from .options import BatchOptions, BatchSummary
from .selection import Selection
from .sender import Sender
from .work import WorkMaker

_TICK_S = 1.0
_LOAD_EVERY_S = 2.0
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
    with Ledger(options.ledger, options.parameters, lambda: _plan(options)) as ledger:
        reader, exported = Reader(ledger.plan), Reader(ledger.plan)  # for one thread each
        try:
            export = Export(ledger, exported, options.output)
            export.check()
            return uvloop.run(_Driver(options, ledger, reader, builder, export).run(progress))
        finally:
            reader.close()
            exported.close()


def _plan(options: BatchOptions) -> Plan:
    return make_plan(find(options.inputs, options.format))


class _Driver:
    """One run of a driver."""

    def __init__(self, options: BatchOptions, ledger: Ledger, reader: Reader, builder: Builder, export: Export) -> None:
        self._options, self._ledger, self._reader, self._builder = options, ledger, reader, builder
        self._export = export
        self._selection = Selection(ledger.plan, options.limit, options.sample)

    async def run(self, progress: Callable[[BatchState], None]) -> BatchSummary:
        """Work until nothing is left, and write the output."""
        self._tally = Tally(await asyncio.to_thread(self._ledger.counts), self._selection.rows)
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
        self._endpoint = Endpoint(options.endpoint, options.key, options.locate)
        self._concurrency = Concurrency(time.monotonic, options.concurrency)
        self._sender = Sender(
            self._endpoint,
            self._concurrency,
            lambda: self._dispatcher.in_flight,
            samples=options.parameters.samples,
            patience_s=options.patience_s,
            waits_for_holes=options.waits_for_holes,
        )
        self._ahead = LookAhead(lambda: loop.call_soon_threadsafe(self._dispatcher.fill))
        self._shards = OpenShards(self._ledger, self._selection, lambda error: self._dispatcher.thread_done(error))
        self._dispatcher = Dispatcher(self._ahead, self._shards, self._sender, self._concurrency, self._tally.settle)
        self._feeder = Feeder(
            self._ledger,
            self._reader,
            self._builder,
            self._selection,
            self._ahead,
            make_work=WorkMaker(options.parameters).make,
            on_open=self._shards.open,
            on_wait=self._tally.wait_for,
            waits=options.waits_for_others,
        )

    async def _work(self, progress: Callable[[BatchState], None]) -> None:
        loop = asyncio.get_running_loop()
        self._feeding = loop.run_in_executor(ThreadPoolExecutor(1, "batch-feed"), self._feeder.run)
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
        while True:
            progress(self._state())
            await asyncio.sleep(_TICK_S)
            await asyncio.to_thread(self._ledger.sync)

    async def _watch_load(self) -> None:
        """Fit the number of requests to what the endpoint tells, until it has told nothing."""
        while self._options.concurrency is None:
            with suppress(UnreachableError):
                load = await read_load(self._endpoint)
                if load is None:
                    return
                self._concurrency.see(load, self._dispatcher.in_flight)
                self._dispatcher.fill()
            await asyncio.sleep(_LOAD_EVERY_S)

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
        return self._tally.state(self._dispatcher.in_flight, self._concurrency.size)

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
