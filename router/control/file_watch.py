"""Follows a file that others write."""

import asyncio
import logging
from collections.abc import Callable
from typing import Generic, TypeVar

from ...core.background.threads import in_thread
from ...core.errors import SlurminferError

PERIOD_S = 5.0

_log = logging.getLogger(__name__)

Found = TypeVar("Found")


class FileWatch(Generic[Found]):
    """Reads again and again, in a thread. What cannot be read changes nothing.

    Args:
        what: is read, for the log.
        read: reads it; raises SlurminferError.
        take: called with what was read.
        period_s: between two looks; by default PERIOD_S.
    """

    def __init__(
        self, what: str, read: Callable[[], Found], take: Callable[[Found], None], period_s: float | None = None
    ) -> None:
        self._what, self._read, self._take, self._period_s = what, read, take, period_s
        self._complaint = ""

    async def look(self) -> None:
        """Read now."""
        try:
            found = await in_thread(self._read)
        except SlurminferError as error:
            if str(error) != self._complaint:
                _log.warning("%s stays as it was: %s", self._what, error)
            self._complaint = str(error)
        else:
            self._complaint = ""
            self._take(found)

    async def watch(self) -> None:
        """Look until cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(PERIOD_S if self._period_s is None else self._period_s)
