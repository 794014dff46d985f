"""GET /load: what requests ask of each pool. The controller of the fleet decides by it how many workers there are."""

import time
from collections import Counter

import msgspec
from aiohttp import web

from ..fleet.outlook import prospects
from .sources import Sources


def load(sources: Sources) -> web.Response:
    """Every pool of the spec, by name."""
    in_flight: Counter[str] = Counter()
    for worker in sources.registry.all():
        in_flight[worker.record.pool] += sources.in_flight(worker.slot)
    hope = prospects(sources.spec, sources.registry.all(), sources.queue(), sources.controller, time.time())
    pools = sources.demand.of_pools(sources.spec, in_flight, sources.registry.served_at, hope)
    return web.json_response({"pools": msgspec.to_builtins(pools)})
