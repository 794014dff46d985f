"""Another router of the same deployment: whether it lives."""

import ssl

import aiohttp

from ..core.background.threads import in_thread
from ..core.errors import RunDirectoryError
from ..core.net.identity import client_context
from ..core.records import RouterRecord
from ..core.rundir import RunDirectory

_TIMEOUT = aiohttp.ClientTimeout(total=3.0)


async def living_router(run: RunDirectory) -> RouterRecord | None:
    """The router of `router.json`, if it answers."""
    try:
        found = await in_thread(run.read_router)
    except RunDirectoryError:  # whoever it is, no client finds it
        return None
    return found if found is not None and await answers(run, found) else None


async def answers(run: RunDirectory, router: RouterRecord) -> bool:
    """Whether the router of that record answers at its port for our own commands, where it proves itself."""
    if router.private_url is None:
        return False
    try:
        tls = await in_thread(lambda: client_context(run.router_identity_path))
        async with (
            aiohttp.ClientSession(timeout=_TIMEOUT) as client,
            client.get(f"{router.private_url}/health", ssl=tls, allow_redirects=False),
        ):
            return True
    except (aiohttp.ClientError, RunDirectoryError, OSError, ValueError, ssl.SSLError):  # TimeoutError is an OSError
        return False
