"""All workers as this relay sees them, from what the supervisor tells."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Collection, Sequence

from ..control.messages import WorkerView
from ..http.messages import Pool
from .upstream import Counts, Row, Upstream

# For so long after a worker was lost, another one may be on its way.
_RECENT_S = 120.0
_STANDINGS = ("ready", "unreachable", "starting", "draining", "gone")

# What requests can wait for: a model (None: any), and the pools that they may go to (None: all).
Lane = tuple[str | None, frozenset[str] | None]


class Workers:
    """The lives of workers by their slots on the board.

    Args:
        connect: makes the connections to a worker.
        forget: called with the slot of a life that has ended.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        counts: Counts,
        row: Row,
        *,
        overcommit: float,
        connect: Callable[[WorkerView], Pool],
        forget: Callable[[int], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._counts, self._row, self._overcommit = counts, row, overcommit
        self._connect, self._forget, self._clock = connect, forget, clock
        self._known: dict[int, Upstream] = {}
        self._retired: set[Upstream] = set()  # with requests in flight still
        self._choosable: dict[Lane, list[Upstream]] = {}  # as long as nothing changes
        self._models: frozenset[str] = frozenset()
        self._last_lost: dict[str, float] = {}  # by model
        self._waiting: list[asyncio.Future[None]] = []

    def hear(self, views: Sequence[WorkerView]) -> None:
        """Follow the supervisor's view."""
        known = {}
        for view in views:
            upstream = self._known.pop(view.slot, None)
            if upstream is None:
                upstream = Upstream(view, self._connect(view), self._counts, self._row, self._clock)
            else:
                upstream.hear(view)
            known[view.slot] = upstream
        for upstream in self._known.values():
            self._last_lost[upstream.model] = self._clock()
            self._retired.add(upstream)
            upstream.retire()
        self._known = known
        # A model whose last worker has just gone is still known: another one may come.
        self._models = frozenset(upstream.model for upstream in known.values()) | frozenset(
            model for model, at in self._last_lost.items() if self._clock() - at < _RECENT_S
        )
        self.changed()

    def of(self, lane: Lane) -> list[Upstream]:
        """The workers that may get a request of this lane now. The same list as long as nothing changes."""
        found = self._choosable.get(lane)
        if found is None:
            found = self._choosable[lane] = [one for one in self.all(lane) if one.choosable]
        return found

    def all(self, lane: Lane = (None, None)) -> list[Upstream]:
        """The workers of a lane, whatever their state."""
        model, pools = lane
        return [
            one
            for one in self._known.values()
            if (model is None or one.model == model) and (pools is None or one.pool in pools)
        ]

    def room(self, lane: Lane) -> tuple[int, int]:
        """Requests that the workers of a lane may have in flight, and those that they have."""
        slots = in_flight = 0
        for upstream in self.of(lane):
            slots += max(1, int(upstream.capacity * self._overcommit * upstream.ramp))
            in_flight += upstream.in_flight
        return slots, in_flight

    def models(self) -> frozenset[str]:
        """The names of all models that a worker serves, is going to serve or has served a moment ago."""
        return self._models

    def may_come(self, lane: Lane, tried: Collection[Upstream]) -> bool:
        """Whether waiting helps a request of this lane for which `tried` were tried."""
        now, recent = self._clock(), self._clock() - _RECENT_S
        for upstream in self.all(lane):
            if upstream in tried:
                if upstream.lost_at is not None and upstream.lost_at > recent:
                    return True  # another life of it may follow
            elif upstream.view.state in ("starting", "ready") or (upstream.lost_at or now) > recent:
                return True
        model = lane[0]
        lost = (at for name, at in self._last_lost.items() if model in (None, name))
        return any(at > recent for at in lost) and not any(one.choosable for one in tried)

    def counts(self) -> dict[str, int]:
        """Number of workers by state; `ready` ones that do not answer count as `unreachable`."""
        found = Counter(
            "unreachable" if one.view.state == "ready" and not one.choosable else one.view.state
            for one in self._known.values()
        )
        return {state: found[state] for state in _STANDINGS}

    def suspect(self, upstream: Upstream) -> None:
        """Choose a worker no more until the supervisor has looked."""
        upstream.suspect()
        self._choosable.clear()

    def tick(self) -> None:
        """Look after workers that have stopped, that must end, or that have ended. To be called about once a second."""
        now = time.time()
        for upstream in (*self._known.values(), *self._retired):
            upstream.tick(now)
        for upstream in [one for one in self._retired if not one.attempts]:
            self._retired.remove(upstream)
            self._forget(upstream.slot)
        self.changed()

    def changed(self) -> None:
        """Let those look again who wait for a change."""
        self._choosable.clear()
        waiting, self._waiting = self._waiting, []
        for future in waiting:
            if not future.done():
                future.set_result(None)

    async def change(self) -> None:
        """Wait until something may have changed."""
        future = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        await future

    def close(self) -> None:
        """Close all connections that carry no request."""
        for upstream in self._known.values():
            upstream.connections.close()
