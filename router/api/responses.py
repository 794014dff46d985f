"""/v1/responses/ID: look at and remove a tenant's responses that are kept (OpenAI's API)."""

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import msgspec
from aiohttp import web

from ...core.background.threads import Result, in_thread
from ...core.errors import DamagedFileError, RunDirectoryError
from ..batches.errors import NotAllowedError, NotThereError
from ..control.counters import Counters
from ..relay.surfaces.responses.items import read_items, shown
from ..responses.limits import LISTED, MOST_LISTED
from ..responses.record import Record
from ..responses.store import ResponseStore
from .files import listing
from .stored import answered, choice, integer, tenant_of

_MOST_S = 5.0

_log = logging.getLogger(__name__)


class Responses:
    """The pages below /v1/responses/ID.

    Args:
        store: None: no responses are kept.
        counters: those that are deleted are counted here.
    """

    def __init__(self, store: ResponseStore | None, counters: Counters) -> None:
        self._store, self._counters = store, counters

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
        return web.Response(body=bytes(record.response), content_type="application/json")

    async def delete(self, request: web.Request) -> web.StreamResponse:
        """DELETE /v1/responses/ID. For those that go on with it, its turn stays."""
        store, tenant, id = self._store, tenant_of(request), request.match_info["response_id"]
        if store is None or not await _in_time(lambda: store.delete(tenant, id)):
            raise NotThereError("response", id)
        self._counters.removed_responses({"deleted": 1})
        return web.json_response({"id": id, "object": "response", "deleted": True})

    async def items(self, request: web.Request) -> web.StreamResponse:
        """GET /v1/responses/ID/input_items: `limit`, `order`, `after`."""
        query = request.query
        limit = integer("limit", query.get("limit"), 1, MOST_LISTED, LISTED)
        order = choice("order", query.get("order"), ("asc", "desc"), "desc")
        record = await self._found(request)

        def page() -> bytes:  # of up to 16 MiB: the workers are looked after in this thread
            found = [shown(item) for item in read_items(record.input)]
            chosen = _after(found if order == "asc" else found[::-1], query.get("after"))
            return msgspec.json.encode(listing(chosen[:limit], len(chosen) > limit))

        return web.Response(body=await _in_time(page), content_type="application/json")

    async def cancel(self, request: web.Request) -> web.StreamResponse:
        """POST /v1/responses/ID/cancel: an error, since a response that is kept is complete."""
        await self._found(request)
        raise NotAllowedError("only responses in the background can be cancelled, and there are none", "response_id")

    async def _found(self, request: web.Request) -> Record:
        store, tenant, id = self._store, tenant_of(request), request.match_info["response_id"]
        try:
            record = None if store is None else await _in_time(lambda: store.get(tenant, id))
        except DamagedFileError as error:
            _log.warning("a kept response cannot be used: %s", error)
            record = None
        if record is None:
            raise NotThereError("response", id)
        return record


async def _in_time(work: Callable[[], Result]) -> Result:
    """The result of `work` in a thread. Raises RunDirectoryError where the filesystem stands still."""
    try:
        async with asyncio.timeout(_MOST_S):
            return await in_thread(work)
    except TimeoutError as error:
        raise RunDirectoryError(f"the filesystem has not answered for {_MOST_S:g} s") from error


def _after(items: list[dict[str, Any]], cursor: str | None) -> list[dict[str, Any]]:
    if cursor is None:
        return items
    places = [place for place, item in enumerate(items) if item["id"] == cursor]
    if not places:
        raise NotAllowedError(f"after = {cursor[:100]!r}: expected the id of an item", "after")
    return items[places[0] + 1 :]
