"""/v1/responses/ID: look at and remove a tenant's responses that are kept (OpenAI's API)."""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
from aiohttp import web

from ...core.background.fair_threads import FairThreads
from ...core.background.threads import Result
from ...core.errors import DamagedFileError, RunDirectoryError
from ..batches.errors import NotAllowedError, NotThereError
from ..control.counters import Counters
from ..relay.surfaces.responses.items import Item, read_items, shown
from ..responses.limits import LISTED, MOST_LISTED
from ..responses.record import Record
from ..responses.store import ResponseStore
from .files import listing
from .stored import answered, choice, integer, tenant_of

_MOST_S = 5.0
_THREADS = 2
_PIECE = 256 * 1024  # bytes
_MOST_HELD, _MOST_OF_TENANT = 256 * 2**20, 48 * 2**20  # bytes of responses that are being read

_log = logging.getLogger(__name__)


class Responses:
    """The pages below /v1/responses/ID.

    Args:
        store: None: no responses are kept.
        counters: those that are deleted are counted here.
    """

    def __init__(self, store: ResponseStore | None, counters: Counters) -> None:
        self._store, self._counters = store, counters
        self._threads = FairThreads(_THREADS)
        self._held = Counter[str]()  # by tenant: bytes of the responses that are being read

    def add_to(self, app: web.Application) -> None:
        """Add the routes."""
        app.router.add_get("/v1/responses/{response_id:resp_[^/]*}", answered(self.retrieve), allow_head=False)
        app.router.add_delete("/v1/responses/{response_id:resp_[^/]*}", answered(self.delete))
        app.router.add_get("/v1/responses/{response_id:resp_[^/]*}/input_items", answered(self.items), allow_head=False)
        app.router.add_post("/v1/responses/{response_id:resp_[^/]*}/cancel", answered(self.cancel))

    async def retrieve(self, request: web.Request) -> web.StreamResponse:
        """GET /v1/responses/ID. Nothing is streamed again."""
        if request.query.get("stream", "false") not in ("false", "0", ""):
            raise NotAllowedError("stream: a response that is complete is not streamed again", "stream")
        record = await self._found(request)
        with self._room(tenant_of(request), record):
            return await _sent(request, memoryview(record.response))

    async def delete(self, request: web.Request) -> web.StreamResponse:
        """DELETE /v1/responses/ID. For those that go on with it, its turn stays."""
        store, tenant, id = self._store, tenant_of(request), request.match_info["response_id"]
        if store is None or not await self._in_time(tenant, lambda: store.delete(tenant, id)):
            raise NotThereError("response", id)
        self._counters.removed_responses({"deleted": 1})
        return web.json_response({"id": id, "object": "response", "deleted": True})

    async def items(self, request: web.Request) -> web.StreamResponse:
        """GET /v1/responses/ID/input_items: `limit`, `order`, `after`."""
        query, tenant = request.query, tenant_of(request)
        limit = integer("limit", query.get("limit"), 1, MOST_LISTED, LISTED)
        order = choice("order", query.get("order"), ("asc", "desc"), "desc")
        record = await self._found(request)
        with self._room(tenant, record):

            def page() -> bytes:  # of up to 16 MiB: the workers are looked after in the event loop
                found = [shown(item) for item in _input(record)]
                chosen = _after(found if order == "asc" else found[::-1], query.get("after"))
                return msgspec.json.encode(listing(chosen[:limit], len(chosen) > limit))

            return await _sent(request, memoryview(await self._usable(request, page)))

    async def cancel(self, request: web.Request) -> web.StreamResponse:
        """POST /v1/responses/ID/cancel: an error, since a response that is kept is complete."""
        await self._found(request)
        raise NotAllowedError("only responses in the background can be cancelled, and there are none", "response_id")

    async def _found(self, request: web.Request) -> Record:
        store, tenant, id = self._store, tenant_of(request), request.match_info["response_id"]
        record = None if store is None else await self._usable(request, lambda: store.get(tenant, id))
        if record is None:
            raise NotThereError("response", id)
        return record

    async def _usable(self, request: web.Request, work: Callable[[], Result]) -> Result:
        """The result of `work` in a thread. Raises NotThereError for a response that is damaged."""
        try:
            return await self._in_time(tenant_of(request), work)
        except DamagedFileError as error:
            _log.warning("a kept response cannot be used: %s", error)
            raise NotThereError("response", request.match_info["response_id"]) from error

    async def _in_time(self, tenant: str, work: Callable[[], Result]) -> Result:
        """The result of `work` in a thread. Raises RunDirectoryError where the filesystem stands still."""
        try:
            async with asyncio.timeout(_MOST_S):
                return await self._threads.run(tenant, work)
        except TimeoutError as error:
            raise RunDirectoryError(f"the filesystem has not answered for {_MOST_S:g} s") from error

    @contextmanager
    def _room(self, tenant: str, record: Record) -> Iterator[None]:
        """Hold a response while a tenant reads it, as slowly as it likes. Raises NotAllowedError without room."""
        size, held = record.size, self._held
        if held[tenant] and (held[tenant] + size > _MOST_OF_TENANT or held.total() + size > _MOST_HELD):
            raise NotAllowedError("too many large responses are being read; ask for this one again later", status=503)
        held[tenant] += size
        try:
            yield
        finally:
            held[tenant] -= size
            if not held[tenant]:
                del held[tenant]


async def _sent(request: web.Request, body: memoryview) -> web.StreamResponse:
    """An answer that is sent piece by piece as the client takes it, so that it is in memory once."""
    answer = web.StreamResponse(headers={"Content-Type": "application/json"})
    answer.content_length = len(body)
    await answer.prepare(request)
    for at in range(0, len(body), _PIECE):
        await answer.write(body[at : at + _PIECE])
    await answer.write_eof()
    return answer


def _input(record: Record) -> list[Item]:
    """The items of the request for a response. Raises DamagedFileError."""
    try:
        return read_items(record.input)
    except (ValueError, RecursionError) as error:
        raise DamagedFileError(f"response {record.id}: {error}") from error


def _after(items: list[dict[str, Any]], cursor: str | None) -> list[dict[str, Any]]:
    if cursor is None:
        return items
    places = [place for place, item in enumerate(items) if item["id"] == cursor]
    if not places:
        raise NotAllowedError(f"after = {cursor[:100]!r}: expected the id of an item", "after")
    return items[places[0] + 1 :]
