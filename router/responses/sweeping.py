"""What keeps the folder of kept responses small, in the router's supervisor."""

import asyncio
import logging
from pathlib import Path

from ...core import files
from ...core.background.threads import in_thread
from ...core.errors import RunDirectoryError
from ...core.spec.router import RouterSpec
from .store import response_store

_PAUSE_S = 60.0

_log = logging.getLogger(__name__)


async def sweep(path: Path, spec: RouterSpec) -> None:
    """Remove again and again what is not to be kept; where nothing is kept, all that was, once.

    A filesystem that stands still holds up nothing but this.
    """
    store = response_store(path, spec)
    while True:
        try:
            await in_thread((lambda: files.remove(path)) if store is None else store.sweep)
        except RunDirectoryError as error:
            _log.warning("responses that are too old could not be removed: %s", error)
        if store is None:
            await asyncio.Event().wait()  # the supervisor's tasks end with the router only
        await asyncio.sleep(_PAUSE_S)
