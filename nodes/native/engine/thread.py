"""The engine thread, which computes, and its interface for asyncio.

The two meet twice only: an inbox of commands, emptied between two steps, and `call_soon_threadsafe`, once a step.
Whatever ends the thread ends every request with an error, and then the process: see `EngineThread.ended`. What one
request causes ends that request alone: see failures.py.
"""

import asyncio
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, TypeVarTuple

from ....core.errors import EngineError
from .embeddings import Embeddings
from .failures import Failure
from .outputs import Outputs
from .request import Embedding, Limits, Output, Request
from .stats import EngineStats

_Args = TypeVarTuple("_Args")

if TYPE_CHECKING:  # it imports torch, which takes seconds: the thread does that while HTTP answers already
    from .core import EngineCore

    Command = Callable[[EngineCore], None]


class EngineThread:
    """The asyncio side; all of its methods are called on the event loop that `start` was called on."""

    def __init__(self) -> None:
        self._inbox: queue.SimpleQueue[Command | None] = queue.SimpleQueue()  # None: stop
        self._outputs: dict[str, Outputs] = {}  # by request
        self._embeddings: dict[str, Embeddings] = {}  # likewise
        self.limits: Limits | None = None  # None while the model is loading
        self.stats = EngineStats()

    def start(self, load: "Callable[[], EngineCore]") -> None:
        """Start the thread, which calls `load` first and then computes. Must be called on a running event loop."""
        self._loop = asyncio.get_running_loop()
        self.ready = asyncio.Event()
        self.ended: asyncio.Future[None] = self._loop.create_future()  # an exception if the engine broke
        threading.Thread(target=self._run, args=(load,), name="engine", daemon=True).start()

    def submit(self, requests: Sequence[Request], *, at_once: bool = True) -> Outputs:
        """Compute `requests` of one client. `at_once`: it wants each token as soon as it is there, see Outputs.

        Raises EngineError if the model is not loaded or the engine has ended, RequestTooLongError.
        """
        self._check(requests)
        outputs = Outputs(requests, self._set_paused, at_once=at_once)
        self._outputs.update(dict.fromkeys((request.id for request in requests), outputs))
        self._inbox.put(lambda core: core.submit(requests))
        return outputs

    def embed(self, requests: Sequence[Request]) -> Embeddings:
        """Compute the embeddings of `requests`, which pool, of one client. Raises as `submit`."""
        self._check(requests)
        embeddings = Embeddings(requests)
        self._embeddings.update(dict.fromkeys((request.id for request in requests), embeddings))
        self._inbox.put(lambda core: core.submit(requests))
        return embeddings

    def _check(self, requests: Iterable[Request]) -> None:
        if self.limits is None or self.ended.done():
            raise EngineError("the engine is not running")
        for request in requests:
            self.limits.check(request.prompt_length, request.params.max_tokens)

    def abort(self, ids: Iterable[str]) -> None:
        """Stop computing requests and free their blocks before the next step; those that are over may be among them."""
        known = [id for id in ids if self._forget(id) is not None]
        if known:
            self._inbox.put(lambda core: core.abort_all(known))

    def _forget(self, id: str) -> Outputs | Embeddings | None:
        """Who waits for a request, who is told no more of it; None if nobody does."""
        return self._outputs.pop(id, None) or self._embeddings.pop(id, None)

    def _set_paused(self, ids: Sequence[str], paused: bool) -> None:
        self._inbox.put(lambda core: core.pause(ids) if paused else core.resume(ids))

    async def stop(self, timeout_s: float) -> bool:
        """End the thread after its present step; False if it does not end in time."""
        self._inbox.put(None)
        await asyncio.wait([self.ended], timeout=timeout_s)
        return self.ended.done()

    def fail(self, error: EngineError) -> None:
        """End the engine with `error`, found outside of its thread. May be called in any thread."""
        self._tell(self._on_end, error)

    # From here on, methods with _on_ run on the event loop, the others in the thread.

    def _run(self, load: "Callable[[], EngineCore]") -> None:
        try:
            core = load()
            self._tell(self._on_ready, core.limits, core.stats())
            self._compute(core)
            core.close()
        except BaseException as error:  # not to carry on: the server hears of it and ends the process
            self._tell(self._on_end, error)
        else:
            self._tell(self._on_end, None)

    def _compute(self, core: "EngineCore") -> None:
        while True:
            for command in self._commands(wait=not core.busy):
                if command is None:
                    return
                command(core)
            outputs = core.step() if core.busy else []
            self._tell(self._on_step, outputs, core.take_embeddings(), core.take_failures(), core.stats())

    def _commands(self, *, wait: bool) -> "Iterator[Command | None]":
        """All that have come; at least one if the engine has nothing else to do."""
        try:
            yield self._inbox.get(block=wait)
            while True:
                yield self._inbox.get_nowait()
        except queue.Empty:
            return

    def _tell(self, listener: Callable[[*_Args], None], *args: *_Args) -> None:
        with suppress(RuntimeError):  # the loop is closed: the engine has failed, and its thread was not waited for
            self._loop.call_soon_threadsafe(listener, *args)

    def _on_ready(self, limits: Limits, stats: EngineStats) -> None:
        self.limits, self.stats = limits, stats
        self.ready.set()

    def _on_step(
        self,
        outputs: Sequence[Output],
        embeddings: Sequence[Embedding],
        failures: Sequence[Failure],
        stats: EngineStats,
    ) -> None:
        self.stats = stats
        now = time.monotonic()
        for output in outputs:
            id = output.request.id
            found = self._outputs.pop(id, None) if output.finish else self._outputs.get(id)
            if found is not None:  # else it was aborted meanwhile
                found.put(output, now)
        for embedding in embeddings:
            waiting = self._embeddings.pop(embedding.request.id, None)
            if waiting is not None:
                waiting.put(embedding)
        for failure in failures:
            client = self._forget(failure.request.id)
            if client is not None:
                client.fail(failure.told)

    def _on_end(self, error: BaseException | None) -> None:
        if self.ended.done():  # what has ended it breaks the thread's step too
            return
        ended: set[Outputs | Embeddings] = {*self._outputs.values(), *self._embeddings.values()}
        self._outputs, self._embeddings = {}, {}
        for outputs in ended:
            outputs.fail(EngineError("the engine has failed" if error else "the engine is shutting down"))
        if error is None:
            self.ended.set_result(None)
        else:
            self.ended.set_exception(error)
