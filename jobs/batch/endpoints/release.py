"""Workers of a batch's own are given back as its queue empties."""

import logging
import math
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from ....core.errors import SlurminferError
from ....core.records import WorkerRecord, WorkerState
from ....core.rundir import RunDirectory
from ...fleet.scale import AUTO, scale
from ...serve.router_link import ask_router, workers_by_id

_LOOK_EVERY_S = 10.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class PoolLoad:
    """One pool of the deployment, as it is now."""

    name: str
    wanted: int  # workers that the controller keeps there
    busy: int  # ready workers with requests in flight
    capacity: int | None = None  # requests that a worker computes at once; None: no ready worker has said it


def surplus(pools: Sequence[PoolLoad], requests: int) -> dict[str, int]:
    """The number of workers, by pool, of those pools that need fewer than they are to have. Pure.

    A worker is not needed where it has nothing in flight, and the others can compute all that is left at once. Where no
    worker has said yet how much it computes at once, all are needed.

    Args:
        pools: in the order in which they keep workers.
        requests: of the batch that have no answer yet.
    """
    capacity = max((pool.capacity or 0 for pool in pools), default=0)
    if not capacity or requests <= 0:
        return {}
    busy = sum(pool.busy * (pool.capacity or capacity) for pool in pools)
    further = max(0, math.ceil((requests - busy) / capacity))
    fewer: dict[str, int] = {}
    for pool in pools:
        kept = min(pool.wanted, pool.busy + further)
        further -= max(0, kept - pool.busy)
        if kept < pool.wanted:
            fewer[pool.name] = kept
    return fewer


class Release:
    """Looks at a deployment now and then, and asks its controller for fewer workers where some have nothing to do.

    Args:
        run: the deployment.
        requests: how many requests of the batch have no answer yet; None: nobody knows.
    """

    def __init__(self, run: RunDirectory, requests: Callable[[], int | None]) -> None:
        self._run, self._requests = run, requests

    def begin(self) -> None:
        """Let all pools have what the spec says: a driver before this one may have given workers back."""
        for pool in self._run.read_scale().pinned:
            scale(self._run, pool, AUTO)

    def look(self) -> dict[str, int]:
        """One look; the pools that are to have fewer workers now, and how many. Raises SlurminferError."""
        left = self._requests()
        live = ask_router(self._run, self._run.read_router(), "/workers") if left else None
        workers = workers_by_id(live[0]) if live else None
        fleet = self._run.read_fleet()
        if left is None or workers is None or fleet is None:
            return {}
        in_flight = {id: int(worker["in_flight"]) for id, worker in workers.items()}
        wanted = {name: pool.wanted or 0 for name, pool in fleet.pools.items()}
        fewer = surplus(loads(self._run.read_workers(), in_flight, wanted, self._run.read_scale().pinned), left)
        for pool, number in fewer.items():
            scale(self._run, pool, str(number))
        return fewer


def loads(
    workers: Iterable[WorkerRecord],
    in_flight: Mapping[str, int],
    wanted: Mapping[str, int],
    pinned: Mapping[str, int],
) -> list[PoolLoad]:
    """The pools from what is written down of them. Pure. A pinned number of workers is the one that is wanted."""
    ready = defaultdict(list)
    for worker in workers:
        if worker.state is WorkerState.READY:
            ready[worker.pool].append(worker)
    return [
        PoolLoad(
            name=name,
            wanted=pinned.get(name, number),
            busy=sum(in_flight.get(worker.id, 0) > 0 for worker in ready[name]),
            capacity=max((worker.capacity or 0 for worker in ready[name]), default=0) or None,
        )
        for name, number in wanted.items()
        if name != "router"
    ]


@contextmanager
def released(release: Release) -> Iterator[None]:
    """Give back workers, as they are not needed any more, until the end of the block."""
    ended = threading.Event()
    thread = threading.Thread(target=_watch, args=(release, ended), daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(_LOOK_EVERY_S)


def _watch(release: Release, ended: threading.Event) -> None:
    complaint = ""
    while not ended.wait(_LOOK_EVERY_S):
        try:
            for pool, number in release.look().items():
                _log.info("pool '%s' is to have %d workers from now on: no more are needed to the end", pool, number)
            complaint = ""
        except SlurminferError as error:
            if str(error) != complaint:
                _log.warning("workers are not given back now: %s", error)
            complaint = str(error)
