"""The upload of a file: multipart/form-data, written to the run directory as it comes."""

import asyncio
import time
from collections.abc import Callable

import aiohttp
from aiohttp import web

from ...core.background.threads import Result, in_thread
from ..batches.errors import NotAllowedError
from ..batches.files import Draft, FileStore
from ..batches.ids import FILE, new_id
from ..batches.limits import KEPT_S, MOST_FILE_BYTES
from ..batches.records import FileRecord
from .multipart import MultipartError, MultipartReader, PartHead, boundary_of
from .stored import kept_s

_WRITTEN = 2**20  # bytes that are written at once
_MOST_PARTS, _LONGEST_FIELD, _LONGEST_NAME = 16, 4096, 255
_FIELDS = ("purpose", "expires_after[anchor]", "expires_after[seconds]")


class Upload:
    """One upload.

    Args:
        store: of the deployment's files.
        tenant: whose file it will be.
        clock: Unix seconds.
    """

    def __init__(self, store: FileStore, tenant: str, clock: Callable[[], float] = time.time) -> None:
        self._store, self._tenant, self._clock = store, tenant, clock
        self._fields: dict[str, str] = {}
        self._draft: Draft | None = None
        self._filename = ""

    async def receive(self, request: web.Request) -> FileRecord:
        """Take the file. Raises NotAllowedError for what is no such form, RunDirectoryError; then nothing is left."""
        try:
            try:
                await self._read(request)
            except (MultipartError, UnicodeDecodeError, aiohttp.ClientError) as error:
                raise NotAllowedError(f"malformed multipart/form-data: {str(error)[:200]}") from error
            return await _in_full(self._keep)
        finally:
            if self._draft is not None:
                draft = self._draft
                await in_thread(draft.discard)

    async def _read(self, request: web.Request) -> None:
        reader = MultipartReader(boundary_of(request.headers.get("Content-Type", "")), request.content.readany)
        for _ in range(_MOST_PARTS):
            part = await reader.next()
            if part is None:
                return
            await self._take(part, reader)
        raise NotAllowedError(f"the form has more than {_MOST_PARTS} parts")

    async def _take(self, part: PartHead, reader: MultipartReader) -> None:
        if part.name == "file":
            if self._draft is not None:
                raise NotAllowedError("file: expected one", "file")
            self._filename = _clean(part.filename)
            room = await in_thread(lambda: self._store.room(self._tenant))
            await self._write(reader, await _in_full(self._begin), room)
        elif part.name in _FIELDS:
            self._fields[part.name] = (await _text(part.name, reader)).strip()
        else:
            valid = ", ".join(("file", *_FIELDS))
            raise NotAllowedError(f"unknown field {part.name[:100]!r}: expected one of {valid}", part.name[:100])

    def _begin(self) -> Draft:
        self._draft = self._store.draft()
        return self._draft

    async def _write(self, reader: MultipartReader, draft: Draft, room: int) -> None:
        pieces, size = bytearray(), 0
        while data := await reader.piece():
            size += len(data)
            if size > MOST_FILE_BYTES:
                raise NotAllowedError(f"the file has more than {MOST_FILE_BYTES // 2**20} MB", "file", "file_too_large")
            if size > room:
                raise self._store.no_room(room)
            pieces += data
            if len(pieces) >= _WRITTEN:
                await _written(draft, bytes(pieces))
                pieces.clear()
        await _written(draft, bytes(pieces))

    def _keep(self) -> FileRecord:
        if self._draft is None:
            raise NotAllowedError("file: missing", "file")
        purpose = self._fields.get("purpose")
        if purpose != "batch":
            raise NotAllowedError(f"purpose = {purpose and purpose[:100]!r}: expected 'batch'", "purpose")
        now = self._clock()
        record = FileRecord(
            id=new_id(FILE, self._tenant, now),
            tenant=self._tenant,
            filename=self._filename,
            purpose="batch",
            bytes=self._draft.size,
            created_at=int(now),
            expires_at=int(now) + self._kept_s(),
        )
        self._store.keep(self._draft, record)
        return record

    def _kept_s(self) -> int:
        anchor, seconds = (self._fields.get(name) for name in _FIELDS[1:])
        return KEPT_S if anchor is None and seconds is None else kept_s("expires_after", anchor, seconds)


async def _in_full(work: Callable[[], Result]) -> Result:
    """The result of `work` in a thread, which is waited for although the client hangs up: so nothing is left of it."""
    working = in_thread(work)
    try:
        return await asyncio.shield(working)
    except asyncio.CancelledError:
        await asyncio.wait([working])
        raise


async def _written(draft: Draft, data: bytes) -> None:
    await in_thread(lambda: draft.write(data))


async def _text(name: str, reader: MultipartReader) -> str:
    data = bytearray()
    while piece := await reader.piece():
        data += piece
        if len(data) > _LONGEST_FIELD:
            raise NotAllowedError(f"{name}: expected at most {_LONGEST_FIELD} bytes", name)
    return data.decode("utf-8")


def _clean(name: str | None) -> str:
    """A file's name as it is shown: never used as a path."""
    last = (name or "").replace("\\", "/").rpartition("/")[2]
    return "".join(letter if letter.isprintable() else "_" for letter in last)[:_LONGEST_NAME] or "file"
