"""The tunnel on a machine that sees the run directory and reaches the router: a login node."""

import asyncio
from collections.abc import Callable
from pathlib import Path

from ...core.background.threads import in_thread
from .announce import POLL_S
from .printer import Printer
from .relay import Target, over_tcp
from .view import EndpointView, address_of


async def follow_here(read: Callable[[], EndpointView], target: Target, printer: Printer, key_path: Path) -> None:
    """Lead `target` to the router that `read` tells of, until cancelled."""
    url: str | None = None
    while True:
        view = await in_thread(read)
        if view.url != url:
            url = view.url
            target.set(None if url is None else over_tcp(*address_of(url)))
        printer.view(view, key_path)
        await asyncio.sleep(POLL_S)
