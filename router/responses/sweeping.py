"""What keeps the folder of kept responses small, in the router's supervisor."""

import asyncio
import logging
from collections.abc import Sequence
from pathlib import Path

from ...core import files
from ...core.background.threads import in_thread
from ...core.errors import RunDirectoryError
from ..control.counters import Counters
from .store import ResponseStore

_PAUSE_S = 60.0

_log = logging.getLogger(__name__)


async def sweep(path: Path, store: ResponseStore | None, counters: Counters) -> None:
    """Remove again and again what is not to be kept; where nothing is kept, all that was, once.

    A filesystem that stands still holds up nothing but this.

    Args:
        path: of the folder of all responses.
        store: None: nothing is kept.
        counters: what is removed is counted here.
    """
    while True:
        try:
            if store is None:
                await in_thread(lambda: files.remove(path))
            else:
                removed, failed = await in_thread(store.sweep)
                counters.removed_responses(removed)
                _warn(failed)
        except RunDirectoryError as error:
            _warn([error])
        if store is None:
            await asyncio.Event().wait()  # the supervisor's tasks end with the router only
        await asyncio.sleep(_PAUSE_S)


def _warn(failed: Sequence[RunDirectoryError]) -> None:
    if failed:
        more = f", and {len(failed) - 1} more" if failed[1:] else ""
        _log.warning("responses that are too old could not be removed: %s%s", failed[0], more)
