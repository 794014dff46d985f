"""Kept responses as a relay reaches them: in threads, so many at once, and for so long.

A filesystem that is full, slow or away costs no answer: then a response is not kept, which its client is told, and a
request that goes on with one is told so.
"""

import asyncio
import errno
import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from msgspec import Raw

from .....core.background.fair_threads import FairThreads
from .....core.background.threads import in_thread
from .....core.errors import RunDirectoryError
from ....control.counters import Counters
from ....responses.limits import MOST_RECORD_BYTES
from ....responses.record import Record
from ....responses.store import Removed, ResponseStore
from ..translation import TranslationError
from .asked import Asked
from .history import History
from .items import Item, write_items

_READ_S, _WRITE_S = 5.0, 2.0  # that a request, and the end of an answer, waits for the filesystem
_MOST_AT_ONCE, _MOST_BYTES = 64, 64 * 2**20  # that are being written, and as many that are to be read
_MOST_OF_TENANT = 32  # of them, so that one tenant leaves some for others
_READERS = 8  # threads: a conversation may be thousands of files, and the event loop wants the interpreter too
_LOG_PAUSE_S = 60.0
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT}
# Why a response is not kept, as metrics name it, and in words.
NOT_KEPT = {
    "off": "this deployment keeps no responses",
    "too_large": f"with its conversation it has more than {MOST_RECORD_BYTES >> 20} MiB",
    "busy": "too many responses are being written",
    "slow": "the filesystem does not answer",
    "no_space": "the filesystem has no room left",
    "failed": "the filesystem does not take it",
}

_log = logging.getLogger(__name__)


class KeptResponses:
    """What one relay does with kept responses.

    Args:
        store: None: nothing is kept.
        counters: what is kept, and what is not, is counted here.
        clock: seconds, for the log.
    """

    def __init__(
        self,
        store: ResponseStore | None,
        counters: Counters | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store, self._clock = store, clock
        self._counters = Counters() if counters is None else counters
        self._reading, self._writing = Counter[str](), Counter[str]()  # by tenant
        self._readers = FairThreads(_READERS)
        self._bytes = 0
        self._is_tidying = False
        self._logged_at = -_LOG_PAUSE_S

    async def history(self, tenant: str, asked: Asked) -> History:
        """The conversation before a request, and its own items without references. Raises TranslationError."""
        store = self._store
        if store is None:
            message = "this deployment keeps no responses ([router] keep_responses = 0): send the whole conversation"
            raise TranslationError(message, _param(asked))
        if not _has_room(self._reading, tenant):
            raise _away(asked)
        self._reading[tenant] += 1
        try:
            async with asyncio.timeout(_READ_S):
                return await self._readers.run(tenant, lambda: History.read(_OfTenant(store, tenant), asked))
        except (TimeoutError, RunDirectoryError) as error:
            self._warn("read", error)
            raise _away(asked) from error
        finally:
            _count_down(self._reading, tenant)

    async def keep(
        self, tenant: str, response: dict[str, Any], previous: str, history: History, items: Sequence[Item]
    ) -> str:
        """Keep a response, before a client is told that it is complete. Returns "", or one of NOT_KEPT.

        Args:
            tenant: whose it is.
            response: the object that clients see.
            previous: the id of the response before, if there is one.
            history: what was before.
            items: of the request.
        """
        why = await self._keep(tenant, response, previous, history, items)
        if why:
            self._counters.count(self._counters.responses_not_kept, why)
        return why

    async def _keep(
        self, tenant: str, response: dict[str, Any], previous: str, history: History, items: Sequence[Item]
    ) -> str:
        store = self._store
        if store is None:
            return "off"
        record = Record(
            id=response["id"],
            tenant=tenant,
            response=Raw(msgspec.json.encode(response)),
            input=Raw(write_items(items)),
            previous=previous,
        )
        if record.size + history.size > MOST_RECORD_BYTES:
            return "too_large"
        if not _has_room(self._writing, tenant) or self._bytes + record.size > _MOST_BYTES:
            self._warn("kept", "too many at once")
            return "busy"
        return await self._write(store, record, history)

    async def _write(self, store: ResponseStore, record: Record, history: History) -> str:
        """Write it; once the time is up in the background."""
        self._writing[record.tenant] += 1
        self._bytes += record.size
        writing = in_thread(lambda: store.keep(record, lambda: Raw(write_items(history.before))))
        writing.add_done_callback(lambda writing: self._has_written(writing, store, record))
        done, _ = await asyncio.wait({writing}, timeout=_WRITE_S)
        if not done:
            return "slow"
        error = writing.exception()
        if error is None:
            return ""
        cause = error.__cause__
        return "no_space" if isinstance(cause, OSError) and cause.errno in _NO_ROOM else "failed"

    def _has_written(self, writing: "asyncio.Future[bool]", store: ResponseStore, record: Record) -> None:
        _count_down(self._writing, record.tenant)
        self._bytes -= record.size
        if writing.cancelled():
            return
        if (error := writing.exception()) is not None:
            self._warn("kept", error)
            return
        self._counters.responses_kept += 1
        self._counters.responses_kept_bytes += record.size
        if writing.result() and not self._is_tidying:  # which no answer waits for
            self._is_tidying = True
            in_thread(lambda: store.tidy(record.id)).add_done_callback(self._has_tidied)

    def _has_tidied(self, tidying: "asyncio.Future[Removed]") -> None:
        self._is_tidying = False
        if tidying.cancelled():
            return
        if (error := tidying.exception()) is not None:
            self._warn("removed", error)
        else:
            self._counters.removed_responses(tidying.result())

    def _warn(self, what: str, why: object) -> None:
        if self._clock() - self._logged_at >= _LOG_PAUSE_S:
            self._logged_at = self._clock()
            _log.warning("a response could not be %s: %s", what, why)


def _param(asked: Asked) -> str:
    return "previous_response_id" if asked.previous_response_id else "input"


def _away(asked: Asked) -> TranslationError:
    message = "kept responses cannot be read now; send this again later, or the whole conversation"
    return TranslationError(message, _param(asked), status=503)


class _OfTenant:
    """Implements `history.Kept`."""

    def __init__(self, store: ResponseStore, tenant: str) -> None:
        self._store, self._tenant = store, tenant

    def get(self, id: str) -> Record | None:
        """A response that clients may refer to."""
        return self._store.get(self._tenant, id)

    def before(self, id: str) -> Record | None:
        """One that another goes on with."""
        return self._store.before(self._tenant, id)


def _has_room(at_once: Counter[str], tenant: str) -> bool:
    return at_once[tenant] < _MOST_OF_TENANT and at_once.total() < _MOST_AT_ONCE


def _count_down(at_once: Counter[str], tenant: str) -> None:
    at_once[tenant] -= 1
    if not at_once[tenant]:
        del at_once[tenant]
