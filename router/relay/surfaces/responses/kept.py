"""Kept responses as a relay reaches them: in threads, so many at once, and for so long.

A filesystem that is full, slow or away costs no answer: then a response is not kept, and a request that goes on with
one is told so.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

import msgspec
from msgspec import Raw

from .....core.background.threads import in_thread
from .....core.errors import RunDirectoryError
from ....responses.limits import MOST_RECORD_BYTES
from ....responses.record import Record
from ....responses.store import ResponseStore
from ..translation import TranslationError
from .asked import Asked
from .history import History
from .items import Item, write_items

_READ_S, _WRITE_S = 5.0, 2.0  # that a request, and the end of an answer, waits for the filesystem
_MOST_AT_ONCE, _MOST_BYTES = 64, 64 * 2**20  # that are being written, and as many that are being read
_LOG_PAUSE_S = 60.0
_Result = TypeVar("_Result")

_log = logging.getLogger(__name__)


class KeptResponses:
    """What one relay does with kept responses.

    Args:
        store: None: nothing is kept.
        clock: seconds, for the log.
    """

    def __init__(self, store: ResponseStore | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._store, self._clock = store, clock
        self._reading = self._writing = self._bytes = 0
        self._is_tidying = False
        self._logged_at = -_LOG_PAUSE_S

    async def history(self, tenant: str, asked: Asked) -> History:
        """The conversation before a request, and its own items without references. Raises TranslationError."""
        store = self._store
        if store is None:
            message = "this deployment keeps no responses ([router] keep_responses = 0): send the whole conversation"
            raise TranslationError(message, _param(asked))
        if self._reading >= _MOST_AT_ONCE:
            raise _away(asked)
        self._reading += 1
        reading = in_thread(lambda: History.read(lambda id: store.get(tenant, id), asked))
        reading.add_done_callback(self._has_read)
        try:
            async with asyncio.timeout(_READ_S):
                return await asyncio.shield(reading)
        except (TimeoutError, RunDirectoryError) as error:
            self._warn("read", error)
            raise _away(asked) from error

    def keep(
        self, tenant: str, response: dict[str, Any], before: Sequence[Item], items: Sequence[Item]
    ) -> Coroutine[Any, Any, None] | None:
        """What keeps a response, to be awaited before a client is told that it is complete. None: it is not kept."""
        store = self._store
        if store is None:
            return None
        record = Record(
            id=response["id"],
            tenant=tenant,
            response=Raw(msgspec.json.encode(response)),
            input=Raw(write_items(items)),
            before=Raw(write_items(before)),
        )
        size = len(record.response) + len(record.input) + len(record.before)
        if size > MOST_RECORD_BYTES or self._writing >= _MOST_AT_ONCE or self._bytes + size > _MOST_BYTES:
            self._warn("kept", "too large, or too many at once")
            return None
        return self._write(store, record, size)

    async def _write(self, store: ResponseStore, record: Record, size: int) -> None:
        """Write it; once the time is up in the background."""
        self._writing += 1
        self._bytes += size
        writing = in_thread(lambda: store.keep(record))
        writing.add_done_callback(lambda writing: self._has_written(writing, store, record.id, size))
        await asyncio.wait({writing}, timeout=_WRITE_S)

    def _has_written(self, writing: "asyncio.Future[bool]", store: ResponseStore, id: str, size: int) -> None:
        self._writing -= 1
        self._bytes -= size
        if writing.cancelled():
            return
        if (error := writing.exception()) is not None:
            self._warn("kept", error)
        elif writing.result() and not self._is_tidying:  # which no answer waits for
            self._is_tidying = True
            in_thread(lambda: store.tidy(id)).add_done_callback(self._has_tidied)

    def _has_tidied(self, tidying: "asyncio.Future[None]") -> None:
        self._is_tidying = False
        if not tidying.cancelled() and (error := tidying.exception()) is not None:
            self._warn("removed", error)

    def _has_read(self, reading: "asyncio.Future[History]") -> None:
        self._reading -= 1
        if not reading.cancelled():
            reading.exception()  # else one that nobody waits for any more is logged as never retrieved

    def _warn(self, what: str, why: object) -> None:
        if self._clock() - self._logged_at >= _LOG_PAUSE_S:
            self._logged_at = self._clock()
            _log.warning("a response could not be %s: %s", what, why)


def _param(asked: Asked) -> str:
    return "previous_response_id" if asked.previous_response_id else "input"


def _away(asked: Asked) -> TranslationError:
    message = "kept responses cannot be read now; send this again later, or the whole conversation"
    return TranslationError(message, _param(asked), status=503)
