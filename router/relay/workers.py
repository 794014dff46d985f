"""All workers as this relay sees them, from what the supervisor tells."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Collection, Hashable, Sequence
from typing import cast

from ..control.messages import Suspect, WorkerView
from ..http.messages import Pool
from ..policies.eligible import Eligibility, Lane
from ..policies.estimates import Rates
from .upstream import Counts, Row, Upstream

# Requests wait for a worker until there has been none for so long.
HOPE_S = 30.0
# What the other relays have in flight is looked at so often at most, and by so much more seldom for each worker: it
# takes longer than a choice.
_COUNT_S, _COUNT_EACH_S = 0.002, 0.000_02
_STANDINGS = ("ready", "unreachable", "starting", "draining", "gone")


class Workers:
    """The lives of workers by their slots on the board.

    Args:
        connect: makes the connections to a worker.
        forget: called with the slot of a life that has ended, and with that of a new one.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        counts: Counts,
        row: Row,
        eligibility: Eligibility,
        *,
        overcommit: float,
        connect: Callable[[WorkerView], Pool],
        forget: Callable[[int], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._counts, self._row, self._eligibility, self._overcommit = counts, row, eligibility, overcommit
        self._connect, self._forget, self._clock = connect, forget, clock
        self._known: dict[int, Upstream] = {}
        self._retired: set[Upstream] = set()  # with requests in flight still
        self._state: list[tuple[int, bool, float | None]] = []  # that policies have been told
        self._slots: dict[Hashable, tuple[int, float]] = {}  # by lane: requests that may be in flight, and as of when
        self._last_chosen: dict[tuple[str, str], float] = {}  # by model and pool: when a life of it has ended
        self._waiting: list[asyncio.Future[None]] = []

    def hear(self, views: Sequence[WorkerView]) -> None:
        """Follow the supervisor's view."""
        known = {}
        for view in views:
            upstream = self._known.get(view.slot)
            if upstream is not None and upstream.is_life_of(view):
                del self._known[view.slot]
                upstream.hear(view)
            else:
                self._forget(view.slot)  # what the other relays' late news may have said of the life before
                upstream = Upstream(view, self._connect(view), self._counts, self._row, self._clock)
            known[view.slot] = upstream
        for upstream in self._known.values():
            self._retire(upstream)
        self._known = known
        self._refresh()

    def room(self, lane: Hashable) -> tuple[int, int]:
        """Requests that the workers of a Lane may have in flight, and those that they have."""
        workers = cast(Sequence[Upstream], self._eligibility.ready(cast(Lane, lane)))
        now = self._clock()
        slots, counted_at = self._slots.get(lane, (0, 0.0))
        if now - counted_at > _COUNT_S + _COUNT_EACH_S * len(workers):
            slots = self._count(workers)
            self._slots[lane] = slots, now
        in_flight = 0
        for upstream in workers:
            in_flight += upstream.in_flight
        return slots, in_flight

    def _count(self, workers: Sequence[Upstream]) -> int:
        """Look at the board; the requests that `workers` may have in flight."""
        slots = 0
        for upstream in workers:
            upstream.count()
            slots += max(1, int(upstream.capacity * self._overcommit * upstream.share))
        return slots

    def may_come(self, lane: Lane, tried: Collection[int] = ()) -> bool:
        """Whether waiting helps a request of this lane for which the workers of the slots `tried` were tried.

        It does if there was a worker a moment ago, and it, another life of it, or one that starts may come.
        """
        model, pools = lane
        recent, there = self._clock() - HOPE_S, self._of(lane)
        if any(
            at > recent and model in (None, ended_model) and (not pools or pool in pools)
            for (ended_model, pool), at in self._last_chosen.items()
        ):
            return True
        was_served = any(one.chosen_last is not None and one.chosen_last > recent for one in there)
        return was_served and any(one.may_come(one.slot in tried) for one in there)

    def counts(self) -> dict[str, int]:
        """Number of workers by state; `ready` ones that do not answer count as `unreachable`."""
        found = Counter(
            "unreachable" if one.view.state == "ready" and not one.choosable else one.view.state
            for one in self._known.values()
        )
        return {state: found[state] for state in _STANDINGS}

    def all(self) -> list[Upstream]:
        """Every worker that the supervisor knows."""
        return list(self._known.values())

    def suspect(self, upstream: Upstream) -> None:
        """Choose a worker no more for a while, if there is another one."""
        upstream.suspect()
        self._refresh()

    def trust(self, upstream: Upstream) -> None:
        """Choose a suspect again that says it is healthy."""
        upstream.trust()
        self._refresh()

    def learn(self, rates: Rates) -> None:
        """Take how fast workers compute. Nothing was measured of some: they are taken to be as fast as the others."""
        for slot, (prefill, decode) in rates.of(self._known).items():
            self._known[slot].prefill_rate, self._known[slot].decode_rate = prefill, decode

    def tick(self) -> list[Suspect]:
        """Look after workers that have stopped, that must end, or that have ended. To be called about once a second.

        Returns those that the supervisor should ask for a token.
        """
        now, doubts = time.time(), []
        for upstream in (*self._known.values(), *self._retired):
            doubt = upstream.tick(now)
            if doubt:
                doubts.append(Suspect(slot=upstream.slot, reason=doubt, kind="silent", at=now))
        self._retired = {upstream for upstream in self._retired if upstream.attempts}
        self._refresh()
        self._wake()
        return doubts

    async def change(self) -> None:
        """Wait until something may have changed, for about a second at most."""
        future = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        await future

    def close(self) -> None:
        """Close all connections that carry no request."""
        for upstream in self._known.values():
            upstream.connections.close()

    def _retire(self, upstream: Upstream) -> None:
        if upstream.chosen_last is not None:
            self._last_chosen[upstream.model, upstream.pool] = self._clock()
        upstream.retire()
        self._forget(upstream.slot)
        if upstream.attempts:
            self._retired.add(upstream)

    def _of(self, lane: Lane) -> list[Upstream]:
        model, pools = lane
        return [one for one in self._known.values() if model in (None, one.model) and (not pools or one.pool in pools)]

    def _refresh(self) -> None:
        """Tell who chooses, if anything has changed."""
        self._use_suspects()
        state = [(one.slot, one.choosable, one.ends_at) for one in self._known.values()]
        if state != self._state:
            self._state = state
            self._slots.clear()
            self._eligibility.update(self.all())
            self._wake()

    def _use_suspects(self) -> None:
        """Where all workers of a model are suspect, they are better than none."""
        served = {one.model for one in self._known.values() if one.is_trusted}
        for upstream in self._known.values():
            upstream.choosable = upstream.is_trusted or (upstream.view.choosable and upstream.model not in served)
            if upstream.choosable:
                upstream.chosen_last = self._clock()

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, []
        for future in waiting:
            if not future.done():
                future.set_result(None)
