"""From a client to a worker and back: bytes as they are, as they come.

Until the first byte of a body has come back, the request of a lost worker goes to another one; when two workers were
lost while they worked on it, it is answered with 502. After the first byte there is no second try: a stream ends with
an error event, anything else with 502 or a broken connection.
"""

import logging
import time
from collections.abc import Callable, Collection
from contextlib import closing

from aiohttp import HttpVersion11, web

from ...core.openai import error_body
from ..api.answers import failure, no_worker
from ..fleet.registry import Registry
from ..fleet.worker import Worker
from ..metrics import Metrics, path_label
from ..policies.policy import Policy, RoutedRequest
from .events import EventGate, error_event
from .upstream import Answer, WorkerLostError, ask

# A request that took two workers down with it may be the reason; it gets no third.
MAX_WORKERS_LOST = 2

_log = logging.getLogger(__name__)


class Relay:
    """Sends requests to workers and their answers back."""

    def __init__(self, registry: Registry, policy: Policy, metrics: Metrics) -> None:
        self._registry, self._policy, self._metrics = registry, policy, metrics

    async def forward(self, request: web.Request, body: bytes, model: str | None) -> web.StreamResponse:
        """Answer `request` by a worker that serves `model` (None: any). Cancelling aborts the worker's request."""
        tried: set[Worker] = set()
        lost, began = 0, time.monotonic()
        asked = RoutedRequest(request.path, model, body)
        while worker := self._policy.choose(asked, self._untried(model, tried)):
            if tried:
                self._metrics.retries.inc()
            tried.add(worker)
            with self._registry.occupied(worker):
                try:
                    answer = await ask(worker, request, body)
                except WorkerLostError as error:
                    self._report(error, "lost" if error.sent else "connect")
                    lost += error.sent
                    if lost == MAX_WORKERS_LOST:
                        return failure(502, f"{lost} workers were lost while they worked on this request; last {error}")
                    continue
                self._metrics.first_byte.labels(path_label(request)).observe(time.monotonic() - began)
                with closing(answer):
                    return await self._pass_on(request, answer)
        return no_worker(self._registry.counts(), model)

    def _untried(self, model: str | None, tried: Collection[Worker]) -> list[Worker]:
        return [worker for worker in self._registry.choosable(model) if worker not in tried]

    def _report(self, error: WorkerLostError, kind: str) -> None:
        _log.warning("%s (%s)", error, kind)
        error.worker.suspect(str(error))
        self._metrics.upstream_errors.labels(error.worker.id, kind).inc()

    async def _pass_on(self, request: web.Request, answer: Answer) -> web.StreamResponse:
        if answer.is_json:
            return await self._whole(answer)
        response = web.StreamResponse(status=answer.status, headers=answer.headers)
        await response.prepare(request)
        if answer.is_events:
            await self._events(request, response, answer)
        else:
            await self._bytes(request, response, answer)
        return response

    async def _whole(self, answer: Answer) -> web.Response:
        """JSON is of use only whole, and as long as nothing was said, an error can still be said properly."""
        try:
            body = b"".join([chunk async for chunk in answer.chunks()])
        except WorkerLostError as error:
            self._report(error, "body")
            return failure(502, f"the answer broke off: {error}", code="worker_lost")
        return web.Response(body=body, status=answer.status, headers=answer.headers)

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
            self._report(error, "stream")
            body = error_body(502, f"the stream broke off: {error}", code="worker_lost")
            await response.write(error_event(body))
            return
        if rest := gate.rest():
            await response.write(rest)

    async def _bytes(self, request: web.Request, response: web.StreamResponse, answer: Answer) -> None:
        try:
            async for chunk in answer.chunks():
                await response.write(chunk)
        except WorkerLostError as error:
            self._report(error, "stream")
            if request.transport is not None:
                request.transport.abort()  # the only way left to say that this is not the whole


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
