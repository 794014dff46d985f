"""From a client to a worker and back: bytes as they are, as they come.

Until the first byte of a body has come back, the request of a lost worker goes to another one. A worker that answers
5xx and is not there a moment later is lost too. A request that has taken two workers is answered with 502, and so it is
when it is sent again. A worker that no longer answers its probes but is not known to be lost gives its requests to
others, as long as nothing has been sent to their clients. After the first byte there is no second try: a stream ends
with an error event, anything else with 502 or a broken connection.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Collection
from contextlib import closing

from aiohttp import HttpVersion11, web

from ...core.openai import error_body
from ..api.answers import failure, no_worker, workers_lost
from ..fleet.registry import Registry, is_own_fault
from ..fleet.worker import Worker
from ..metrics import Metrics, path_label
from ..policies.policy import Policy, RoutedRequest
from .beginning import Beginning
from .events import EventGate, error_event
from .lost_workers import MAX_WORKERS_LOST, LostWorkers
from .upstream import Answer, WorkerLostError, ask

_log = logging.getLogger(__name__)


class WorkerStoppedError(Exception):
    """A worker no longer answers its probes, and another one could take the request."""


class Relay:
    """Sends requests to workers and their answers back."""

    def __init__(self, registry: Registry, policy: Policy, metrics: Metrics) -> None:
        self._registry, self._policy, self._metrics = registry, policy, metrics
        self._lost_workers = LostWorkers()

    async def forward(self, request: web.Request, body: bytes, model: str | None) -> web.StreamResponse:
        """Answer `request` by a worker that serves `model` (None: any). Cancelling aborts the worker's request."""
        if self._lost_workers.is_barred(body):
            return workers_lost("that was when it was sent before")
        tried: set[Worker] = set()
        lost, began = 0, time.monotonic()
        asked = RoutedRequest(request.path, model, body)
        while worker := self._policy.choose(asked, self._untried(model, tried)):
            if tried:
                self._metrics.retries.inc()
            tried.add(worker)
            with self._registry.occupied(worker):
                try:
                    answer, beginning = await self._attempt(worker, request, asked, tried)
                except WorkerStoppedError as error:
                    _log.warning("%s", error)
                    self._metrics.upstream_errors.labels(worker.id, "stopped").inc()
                    continue
                except WorkerLostError as error:
                    if is_own_fault(error.__cause__):
                        _log.warning("no connection to a worker can be made: %s", error)
                        return failure(503, "the router cannot open another connection; send this again later")
                    self._report(error, "lost" if error.sent else "connect", body)
                    lost += error.sent
                    if lost == MAX_WORKERS_LOST or self._lost_workers.is_barred(body):
                        return workers_lost(f"last {error}")
                    continue
                self._metrics.first_byte.labels(path_label(request)).observe(time.monotonic() - began)
                with closing(answer):
                    return await self._pass_on(request, answer, beginning, body)
        return no_worker(self._registry.counts(), model)

    async def _attempt(
        self, worker: Worker, request: web.Request, asked: RoutedRequest, tried: Collection[Worker]
    ) -> tuple[Answer, Beginning | None]:
        """Ask `worker`. What is to be passed on whole has a Beginning.

        Raises WorkerLostError, also for one that has answered 5xx and then was lost, and WorkerStoppedError.
        """
        try:
            async with asyncio.timeout(None) as patience:
                worker.waiting[patience] = lambda: bool(self._untried(asked.model, tried))
                try:
                    return await self._ask(worker, request, asked.body)
                finally:
                    worker.waiting.pop(patience, None)
        except TimeoutError as error:
            if patience.expired():
                raise WorkerStoppedError(f"worker {worker.id} has stopped: {worker.trouble}") from error
            raise

    async def _ask(self, worker: Worker, request: web.Request, body: bytes) -> tuple[Answer, Beginning | None]:
        answer = await ask(worker, request, body)
        if answer.is_events and answer.status < 500:
            return answer, None
        try:
            is_whole = answer.is_json or answer.status >= 400
            beginning = Beginning(answer) if is_whole else None
            if beginning is not None:
                await beginning.fill()
            if answer.status >= 500:
                if not await self._registry.outlives(worker):
                    raise WorkerLostError(worker, WorkerDiedError(answer.status), sent=True)
                self._lost_workers.failed(body, worker)
        except BaseException:
            answer.close()
            raise
        return answer, beginning

    def _untried(self, model: str | None, tried: Collection[Worker]) -> list[Worker]:
        return [worker for worker in self._registry.choosable(model) if worker not in tried]

    def _report(self, error: WorkerLostError, kind: str, body: bytes) -> None:
        _log.warning("%s (%s)", error, kind)
        error.worker.suspect(str(error))
        self._metrics.upstream_errors.labels(error.worker.id, kind).inc()
        if error.sent:
            self._lost_workers.lost(body, error.worker)

    async def _pass_on(
        self, request: web.Request, answer: Answer, beginning: Beginning | None, body: bytes
    ) -> web.StreamResponse:
        try:
            response = await self._send(request, answer, beginning)
        except WorkerLostError as error:  # nothing has been said yet
            self._report(error, "body", body)
            return failure(502, f"the answer broke off: {error}", code="answer_broke_off")
        except _BrokenOffError as broken:
            self._report(broken.error, "stream", body)
            return broken.response
        if answer.status < 500:
            self._lost_workers.answered(body)
        return response

    async def _send(self, request: web.Request, answer: Answer, beginning: Beginning | None) -> web.StreamResponse:
        """Send the answer to the client. Raises WorkerLostError and _BrokenOffError."""
        if beginning is not None and beginning.broken is not None:
            raise beginning.broken
        if beginning is not None and beginning.is_all:
            return _whole(request, answer, beginning.take())
        response = web.StreamResponse(status=answer.status, headers=answer.headers)
        await response.prepare(request)
        if answer.is_events and beginning is None:
            await self._events(request, response, answer)
        else:
            await self._bytes(request, response, beginning or Beginning(answer))
        return response

    async def _events(self, request: web.Request, response: web.StreamResponse, answer: Answer) -> None:
        gate = EventGate()
        write = _chunk_writer(request, gate)
        try:
            async for chunk in answer.chunks():
                if whole := gate.feed(chunk):
                    await response.write(whole)  # with the head, if it is the first
                    if write is not None:
                        await answer.pour(write)
                        await request.writer.drain()
        except WorkerLostError as error:
            body = error_body(502, f"the stream broke off: {error}", code="answer_broke_off")
            await response.write(error_event(body))
            raise _BrokenOffError(error, response) from error
        if rest := gate.rest():
            await response.write(rest)

    async def _bytes(self, request: web.Request, response: web.StreamResponse, beginning: Beginning) -> None:
        try:
            if content := beginning.take():
                await response.write(content)
            async for chunk in beginning.rest:
                await response.write(chunk)
        except WorkerLostError as error:
            if request.transport is not None:
                request.transport.abort()  # the only way left to say that this is not the whole
            raise _BrokenOffError(error, response) from error


class WorkerDiedError(Exception):
    """A worker has answered, and was not there a moment later."""

    def __init__(self, status: int) -> None:
        super().__init__(f"it answered {status} and was lost")


class _BrokenOffError(Exception):
    """A worker was lost after a part of its answer had been sent in `response`, which says so itself."""

    def __init__(self, error: WorkerLostError, response: web.StreamResponse) -> None:
        self.error, self.response = error, response
        super().__init__(str(error))


def _whole(request: web.Request, answer: Answer, content: bytes) -> web.Response:
    """The answer in one piece. That a worker does not know a path is said in OpenAI's shape, whatever its own is."""
    if answer.status in (404, 405) and b'"error"' not in content:
        return failure(404, f"{request.method} {request.path[:200]}: Not Found")
    return web.Response(body=content, status=answer.status, headers=answer.headers)


def _chunk_writer(request: web.Request, gate: EventGate) -> Callable[[bytes], bool] | None:
    """A function that writes what passes `gate` to the client; None for a client that does not take chunks (HTTP/1.0).

    It returns False where nothing more should be written for now: the client has not read yet, or has gone. It writes
    the same bytes as `StreamResponse.write` and takes less time for an event, because it looks at nothing else.
    """
    transport, protocol = request.transport, request.protocol
    if transport is None or request.version != HttpVersion11:
        return None

    def write(data: bytes) -> bool:
        if transport.is_closing():
            return False
        if whole := gate.feed(data):
            transport.write(b"%x\r\n%b\r\n" % (len(whole), whole))
        return not protocol.writing_paused

    return write
