"""One request at one worker: sent as it came, answered as it comes."""

import io
from collections.abc import AsyncIterator, Callable
from typing import cast

import aiohttp
from aiohttp import web
from multidict import CIMultiDict, CIMultiDictProxy

from ...core.openai import REQUEST_ID_HEADER
from ..api.access import request_id
from ..fleet.registry import TRANSPORT_ERRORS, describe
from ..fleet.worker import Worker
from .splice import SplicedResponse

# What belongs to one connection (RFC 9110, 7.6.1), what aiohttp sets itself, and the client's own credentials.
_NOT_FORWARDED = frozenset(
    {"connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "proxy-connection", "te", "trailer"}
    | {"transfer-encoding", "upgrade", "host", "content-length", "content-encoding", "accept-encoding", "expect"}
    | {"authorization", "x-api-key"}
)


class WorkerLostError(Exception):
    """A worker could not be reached, or its connection broke. `sent`: it may have begun to work on the request."""

    def __init__(self, worker: Worker, error: BaseException, *, sent: bool) -> None:
        self.worker, self.sent = worker, sent
        super().__init__(f"worker {worker.id}: {describe(error)}")


class Answer:
    """A worker's answer whose body has begun; `close` it, which aborts what is still being computed."""

    def __init__(self, worker: Worker, response: SplicedResponse, first: bytes) -> None:
        self.worker = worker
        self._response, self._first = response, first

    @property
    def status(self) -> int:
        """The HTTP status of the worker's answer."""
        return self._response.status

    @property
    def headers(self) -> CIMultiDict[str]:
        """The worker's headers that a client may get: all but those of one connection."""
        return forwardable(self._response.headers)

    @property
    def is_events(self) -> bool:
        """Whether the body is a stream of server-sent events."""
        return self._response.content_type == "text/event-stream"

    @property
    def is_json(self) -> bool:
        """Whether the body is one JSON document."""
        return self._response.content_type == "application/json"

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body as it comes. Raises WorkerLostError where it breaks off."""
        chunk = self._first
        while chunk:
            yield chunk
            chunk = await _read(self.worker, self._response)

    async def pour(self, write: Callable[[bytes], bool]) -> None:
        """Give the body to `write` as it comes, while that says True; then `chunks` go on. May return at any time."""
        await self._response.splice.pour(write)

    def close(self) -> None:
        """Close the worker's connection, which makes its engine abort the request if it still computes."""
        _abort(self._response)


async def ask(worker: Worker, request: web.Request, body: bytes) -> Answer:
    """Send `request` to `worker` and wait for the first bytes of the answer's body. Raises WorkerLostError."""
    response = await _send(worker, request, body)
    try:
        return Answer(worker, response, await _read(worker, response))
    except BaseException:
        _abort(response)
        raise


def _abort(response: SplicedResponse) -> None:
    """Close the connection of a response that has not ended at once; closing TLS would wait for the peer."""
    if response.connection is not None and response.connection.transport is not None:
        response.connection.transport.abort()
    response.close()


async def _send(worker: Worker, request: web.Request, body: bytes) -> SplicedResponse:
    assert worker.connection is not None, "a worker is chosen after a good probe"
    path = request.rel_url.raw_path_qs
    # aiohttp warns about large bodies given as bytes: it would write them in one go.
    data = io.BytesIO(body)
    headers = forwardable(request.headers)
    headers[REQUEST_ID_HEADER] = request_id(request)
    try:
        response = await worker.connection.request(
            request.method, path, data=data, headers=headers, allow_redirects=False
        )
        return cast(SplicedResponse, response)
    except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
        raise WorkerLostError(worker, error, sent=False) from error
    except TRANSPORT_ERRORS as error:
        raise WorkerLostError(worker, error, sent=True) from error


async def _read(worker: Worker, response: SplicedResponse) -> bytes:
    try:
        return await response.splice.read() or await response.content.readany()
    except TRANSPORT_ERRORS as error:
        raise WorkerLostError(worker, error, sent=True) from error


def forwardable(headers: CIMultiDictProxy[str]) -> CIMultiDict[str]:
    """The headers that go from one connection to the next."""
    return CIMultiDict((name, value) for name, value in headers.items() if name.lower() not in _NOT_FORWARDED)
