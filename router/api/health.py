"""GET /health: whether any worker can be asked; for those with a key also how many are in which state."""

from aiohttp import web

from .answers import failure, no_worker
from .caller import caller_of
from .sources import Sources


def health(sources: Sources, request: web.Request) -> web.Response:
    """200 if a worker is ready, else 503."""
    counts = sources.registry.counts()
    if caller_of(request).tenant is None:
        return web.json_response({"status": "ok"}) if counts["ready"] else failure(503, "no worker is ready")
    if counts["ready"]:
        return web.json_response({"status": "ok", "workers": counts})
    return no_worker(counts)
