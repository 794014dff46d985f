"""All workers as this relay sees them, from what the supervisor tells."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from typing import NamedTuple, cast

from ...control.messages import Outlook, Suspect, WorkerView
from ...http.messages import Pool
from ...policies.eligible import Eligibility, Lane
from ...policies.estimates import Rates
from .upstream import Counts, InFlight, Row, Upstream

# Requests wait for a worker until there has been none for so long, unless the controller of the fleet says more.
HOPE_S = 30.0
# What the other relays have in flight is looked at so often at most, and by so much more seldom for each worker: it
# takes longer than a choice.
_COUNT_S, _COUNT_EACH_S = 0.002, 0.000_02
_STANDINGS = ("ready", "unreachable", "starting", "draining", "gone")


class _Counted(NamedTuple):
    """The workers of a lane, the requests that they may have in flight, and until when that holds."""

    workers: Sequence[Upstream]
    slots: int
    until: float


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
        self._counted: dict[Hashable, _Counted] = {}  # by lane
        self._last_chosen: dict[tuple[str, str], float] = {}  # by model and pool: when a life of it has ended
        self._waiting: list[asyncio.Future[None]] = []
        self._outlooks: Mapping[str, Outlook] = {}  # by pool
        self.choosable = 0  # workers that may get requests now

    def hear(self, views: Sequence[WorkerView], outlooks: Mapping[str, Outlook]) -> None:
        """Follow the supervisor's view."""
        self._outlooks, known = outlooks, {}
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
        now, counted = self._clock(), self._counted.get(lane)
        if counted is None or now > counted.until:
            counted = self._counted[lane] = self._count(cast(Lane, lane), now)
        in_flight = 0
        for upstream in counted.workers:
            in_flight += upstream.in_flight
        return counted.slots, in_flight

    def _count(self, lane: Lane, now: float) -> _Counted:
        """Look at the board."""
        workers, slots = cast(Sequence[Upstream], self._eligibility.ready(lane)), 0
        for upstream in workers:
            upstream.count()
            slots += max(1, int(upstream.capacity * self._overcommit * upstream.share))
        return _Counted(workers, slots, now + _COUNT_S + _COUNT_EACH_S * len(workers))

    def may_come(self, lane: Lane, tried: Collection[int] = ()) -> bool:
        """Whether waiting helps a request of this lane for which the workers of the slots `tried` were tried.

        Where no worker is ready, the controller of the fleet knows best. Otherwise it does if there was a worker a
        moment ago, and it, another life of it, or one that starts may come. One that has just become ready counts too,
        though the supervisor has not reached it yet.
        """
        told = self._told(lane)
        if told is not None:
            return told
        model, pools = lane
        recent, there = self._clock() - HOPE_S, self._of(lane)
        if any(
            at > recent and model in (None, ended_model) and (not pools or pool in pools)
            for (ended_model, pool), at in self._last_chosen.items()
        ):
            return True
        was_served = any(max(one.chosen_last or recent, one.ready_at or recent) > recent for one in there)
        return was_served and any(one.may_come(one.slot in tried) for one in there)

    def is_promised(self, lane: Lane) -> bool:
        """Whether the controller says that a worker comes for a lane that has none."""
        return self._told(lane) is True

    def outlooks_of(self, lane: Lane) -> list[Outlook]:
        """What is known of the pools of a lane that have no worker."""
        return [self._outlooks[name] for name in self._eligibility.pools_of(lane) if name in self._outlooks]

    def outlooks(self) -> Collection[Outlook]:
        """What is known of all pools."""
        return self._outlooks.values()

    def _told(self, lane: Lane) -> bool | None:
        """Whether the controller says that a worker comes, or that none does; None: a worker is ready, or who knows."""
        if self._eligibility.ready(lane):
            return None
        outlooks = [self._outlooks.get(name) for name in self._eligibility.pools_of(lane)]
        told = {None if outlook is None else outlook.may_come for outlook in outlooks}
        if True in told:
            return True
        return False if told == {False} else None

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

    def engines(self, model: str | None) -> set[str]:
        """The engines of the workers of a model; of all, where it is another name or none. Any thread may ask."""
        workers = self.all()
        found = {upstream.engine for upstream in workers if upstream.model == model}
        return found or {upstream.engine for upstream in workers}

    def in_flight(self) -> list[InFlight]:
        """Every attempt that has not ended, also at workers that are gone."""
        return [attempt for upstream in (*self._known.values(), *self._retired) for attempt in upstream.attempts]

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

    def poke(self) -> None:
        """Let those look again that wait for a change."""
        self._wake()

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
            self._counted.clear()
            self._eligibility.update(self.all())
            self._wake()

    def _use_suspects(self) -> None:
        """Where all workers of a model are suspect, they are better than none."""
        served = {one.model for one in self._known.values() if one.is_trusted}
        self.choosable = 0
        for upstream in self._known.values():
            upstream.choosable = upstream.is_trusted or (upstream.view.choosable and upstream.model not in served)
            if upstream.choosable:
                self.choosable += 1
                upstream.chosen_last = self._clock()

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, []
        for future in waiting:
            if not future.done():
                future.set_result(None)
