"""/v1/files: upload, list, look at, read and delete a tenant's files (OpenAI's API)."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

import msgspec
from aiohttp import web

from ...core.background.fair_threads import FairThreads
from ...core.background.threads import in_thread
from ..batches.files import FileStore
from ..batches.limits import MOST_FILES_LISTED
from ..batches.records import FileRecord
from .stored import answered, choice, integer, tenant_of
from .upload import Upload

_PIECE = 256 * 1024  # bytes
_LISTING = 2  # threads: each wants the interpreter for as long as it takes to read thousands of records


class Files:
    """The pages below /v1/files."""

    def __init__(self, store: FileStore, clock: Callable[[], float] = time.time) -> None:
        self._store, self._clock = store, clock
        self._threads = FairThreads(_LISTING)

    def add_to(self, app: web.Application) -> None:
        """Add the routes."""
        app.router.add_post("/v1/files", answered(self.create))
        app.router.add_get("/v1/files", answered(self.list), allow_head=False)
        app.router.add_get("/v1/files/{file_id}", answered(self.retrieve), allow_head=False)
        app.router.add_delete("/v1/files/{file_id}", answered(self.delete))
        app.router.add_get("/v1/files/{file_id}/content", answered(self.content), allow_head=False)

    async def create(self, request: web.Request) -> web.StreamResponse:
        """POST /v1/files: multipart with `file`, `purpose` and perhaps `expires_after`."""
        upload = Upload(self._store, tenant_of(request), self._clock)
        return web.json_response(shown(await upload.receive(request)))

    async def list(self, request: web.Request) -> web.StreamResponse:
        """GET /v1/files: `after`, `limit`, `order`, `purpose`."""
        query, tenant = request.query, tenant_of(request)
        limit = integer("limit", query.get("limit"), 1, MOST_FILES_LISTED, MOST_FILES_LISTED)
        order = choice("order", query.get("order"), ("asc", "desc"), "desc")

        def look() -> bytes:  # at up to ten thousand records: the workers are looked after in the event loop
            found, more = self._store.listed(
                tenant,
                limit=limit,
                after=query.get("after"),
                newest_first=order == "desc",
                purpose=query.get("purpose"),
            )
            return msgspec.json.encode(listing([shown(record) for record in found], more))

        return web.Response(body=await self._threads.run(tenant, look), content_type="application/json")

    async def retrieve(self, request: web.Request) -> web.StreamResponse:
        """GET /v1/files/ID."""
        return web.json_response(shown(await self._found(request)))

    async def delete(self, request: web.Request) -> web.StreamResponse:
        """DELETE /v1/files/ID."""
        tenant, id = tenant_of(request), request.match_info["file_id"]
        await in_thread(lambda: self._store.delete(tenant, id))
        return web.json_response({"id": id, "object": "file", "deleted": True})

    async def content(self, request: web.Request) -> web.StreamResponse:
        """GET /v1/files/ID/content: its bytes, read piece by piece as the client takes them."""
        record = await self._found(request)
        file = await in_thread(lambda: self._store.open(record))
        try:
            response = web.StreamResponse(headers={"Content-Type": "application/octet-stream"})
            response.content_length = record.bytes
            await response.prepare(request)
            while data := await in_thread(lambda: file.read(_PIECE)):
                await response.write(data)
            await response.write_eof()
            return response
        finally:
            asyncio.get_running_loop().run_in_executor(None, file.close)

    async def _found(self, request: web.Request) -> FileRecord:
        tenant, id = tenant_of(request), request.match_info["file_id"]
        return await in_thread(lambda: self._store.get(tenant, id))


def shown(record: FileRecord) -> dict[str, Any]:
    """A file as OpenAI's API shows it."""
    found = {
        "id": record.id,
        "object": "file",
        "bytes": record.bytes,
        "created_at": record.created_at,
        "filename": record.filename,
        "purpose": record.purpose,
        "status": "processed",
    }
    return found if record.expires_at is None else {**found, "expires_at": record.expires_at}


def listing(data: list[dict[str, Any]], more: bool) -> dict[str, Any]:
    """A page of a list as OpenAI's API shows it."""
    ids = [one["id"] for one in data]
    return {
        "object": "list",
        "data": data,
        "first_id": ids[0] if ids else None,
        "last_id": ids[-1] if ids else None,
        "has_more": more,
    }
