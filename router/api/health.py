"""GET /health: whether requests are answered; for those with a key also how many workers are in which state."""

from aiohttp import web

from .answers import failure, no_worker
from .caller import caller_of
from .sources import Sources


def health(sources: Sources, request: web.Request) -> web.Response:
    """200 if a worker is ready, or a request would wait until one of a pool that may sleep was started; else 503.

    Who decides by this page whether requests are sent here must go on sending them to a deployment that sleeps.
    """
    counts, has_key = sources.registry.counts(), caller_of(request).tenant is not None
    if counts["ready"] or any(outlook.may_sleep for outlook in sources.outlooks().values()):
        status = {"status": "ok" if counts["ready"] else "asleep"}
        return web.json_response({**status, "workers": counts} if has_key else status)
    return no_worker(counts) if has_key else failure(503, "no worker is ready")
